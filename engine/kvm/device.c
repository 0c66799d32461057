/* The device, /dev/kvm or another of its kind: whether it is there, may be opened, and can do what
 * the engine needs. */
#include "engine/kvm/kvm.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

#define USUAL_DEVICE "/dev/kvm"

/* The version that has been stable since Linux 2.6.22 (api.rst 4.1); any other is to be refused. */
#define API_VERSION 12

static const struct {
	int number;
	const char *name;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	int ret = ioctl(fd, request, arg);
	return ret < 0 ? -errno : ret;
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long value)
{
	return kvm_ioctl(fd, request, (void *)value);
}

/* Who may open the device, from its owner and mode: the sentence that mends EACCES. */
static int error_no_permission(const char *device, struct error *err)
{
	struct stat st;
	struct group group, *found = NULL;
	char names[1024];

	if (stat(device, &st))
		return error_errno(err, errno, "%s", device);
	if ((st.st_mode & 060) != 060)
		return error_set(err, EACCES,
				 "%s: no permission (mode %03o, only its owner may use it); "
				 "as root: chgrp kvm %s && chmod 660 %s",
				 device, st.st_mode & 0777, device, device);
	getgrgid_r(st.st_gid, &group, names, sizeof(names), &found);
	if (!found)
		return error_set(err, EACCES, "%s: no permission; it belongs to group %u", device,
				 st.st_gid);
	return error_set(err, EACCES,
			 "%s: no permission; it belongs to group '%s'; join it with "
			 "`sudo usermod -aG %s $USER` and log in again",
			 device, found->gr_name, found->gr_name);
}

static int error_open(const char *device, int errnum, struct error *err)
{
	bool usual = !strcmp(device, USUAL_DEVICE);

	switch (errnum) {
	case ENOENT:
		return error_set(err, ENOENT, "%s does not exist%s", device,
				 usual ? "; load kvm_intel or kvm_amd, or switch "
					 "virtualization on in the firmware"
				       : "");
	case ENODEV:
	case ENXIO:
		return error_set(err, ENOENT, "%s has no driver behind it%s", device,
				 usual ? "; load kvm_intel or kvm_amd" : "");
	case EACCES:
	case EPERM:
		return error_no_permission(device, err);
	default:
		return error_errno(err, errnum, "%s", device);
	}
}

int kvm_open(const char *device, struct error *err)
{
	if (!device)
		device = USUAL_DEVICE;
	int fd = open(device, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return error_open(device, errno, err);

	int ret;
	int version = kvm_ioctl_value(fd, KVM_GET_API_VERSION, 0);
	if (version != API_VERSION) {
		ret = error_set(err, ENOENT, "%s speaks API version %d, not %d", device, version,
				API_VERSION);
		goto fail;
	}
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (kvm_ioctl_value(fd, KVM_CHECK_EXTENSION, needed[i].number) <= 0) {
			ret = error_set(err, ENOENT, "%s lacks %s; it takes a newer host kernel",
					device, needed[i].name);
			goto fail;
		}
	}
	return fd;

fail:
	close(fd);
	return ret;
}

/** Whether this processor shows VMX (SDM vol. 3C 24.6) or SVM (APM vol. 2 15.4). */
static bool has_virtualization(void)
{
	u32 eax, ebx, ecx, edx;

	if (__get_cpuid(0x1, &eax, &ebx, &ecx, &edx) && (ecx & BIT(5)))
		return true;
	return __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (ecx & BIT(2));
}

void kvm_probe(const char *device, struct engine_probe *out)
{
	struct error err = {0};
	int fd = kvm_open(device, &err);

	out->usable = fd >= 0;
	/* A KVM without either is one in software (PVM): native in user mode at best. */
	out->emulated = out->usable && !has_virtualization();
	if (fd < 0) {
		snprintf(out->reason, sizeof(out->reason), "%.*s", (int)sizeof(out->reason) - 1,
			 err.text);
		return;
	}
	snprintf(out->reason, sizeof(out->reason), "API version %d, up to %d vCPUs%s", API_VERSION,
		 kvm_ioctl_value(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS),
		 out->emulated ? "; the processor shows neither VMX nor SVM" : "");
	close(fd);
}

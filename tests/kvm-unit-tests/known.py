"""What is known of kvm-unit-tests' VMX tests on Guise: checks that fail or are skipped, and why.

run.py takes a line that is not in here for a failure, and a row that fits no line too: whoever adds a feature takes its
rows out. A row is the beginning of a line as the test prints it, and the reason.
"""

ONE_CPU = "the soft engine has one vCPU"

# Tests that [vmx] leaves out by name and no entry of its own runs: run here as entries.
EXTRA = {
    "exit_monitor_from_l2_test": "exit_monitor_from_l2_test",
    "atomic_switch_overflow_msrs_test": "atomic_switch_overflow_msrs_test",
}

# More than some seconds: suite "slow".
LONG = {"vmx", "vmx_apicv_test", "vmx_vmcs_shadow_test", "vmx_pf_vpid_test", "vmx_pf_invvpid_test",
        "vmx_pf_no_vpid_test"}

# XPASS: the suite writes down what KVM does wrong; a processor passes.
DB = "KVM loses what was pending where it emulates WBINVD; here it is as behind any instruction (SDM 3C 27.7.3, 28.3.4)"

# Tests that take the time: on a busy host they may fail.
MAY = {
    "vmx": {
        "FAIL: RDTSC to VM-exit delta too high": "wants fewer than 750 cycles from RDTSC to the exit behind it",
        "FAIL: Guest didn't run to completion": "follows from the one before",
    },
}

KNOWN = {
    "vmx": {
        "XPASS: Expected pending debug exceptions 0 (actual 0)": DB,
        "XPASS: Expected exit qualification 4001 (actual 4001)": DB,
        "SKIP: nmi_hlt_main : CPU count < 2": ONE_CPU,
        "SKIP: vmx_apic_passthrough : CPU count < 2": ONE_CPU,
        "SKIP: vmx_sipi_signal_test : CPU count < 2": ONE_CPU,
        "SKIP: vmx_eoi_bitmap_ioapic_scan_test : Not all required APICv bits supported or CPU count < 2": ONE_CPU,
        "SKIP: LAM is not supported": "the processor has no linear-address masking",
        "SKIP: test_load_host_perf_global_ctrl": "the processor has no performance counters",
        "SKIP: test_load_guest_perf_global_ctrl": "the processor has no performance counters",
        "SKIP: test_load_guest_bndcfgs": "the processor has no MPX",
        "SKIP: Load CET state exit control": "the processor has no CET",
        "Host skipping test: 5 level paging": "the processor has four levels",
        "Feature required for MWAIT": "the processor has no MONITOR and MWAIT",
        "Feature required for MONITOR": "the processor has no MONITOR and MWAIT",
        "Feature required for RDPMC": "the processor has no performance counters",
    },
    "vmx_eoi_bitmap_ioapic_scan": {"SKIP: vmx_eoi_bitmap_ioapic_scan_test": ONE_CPU},
    "vmx_posted_intr_test": {"SKIP: vmx_posted_interrupts_test : CPU count < 2": ONE_CPU},
    "vmx_apic_passthrough_thread": {"SKIP: vmx_apic_passthrough : CPU count < 2": ONE_CPU},
    "vmx_init_signal_test": {"SKIP: vmx_init_signal_test : CPU count < 2": ONE_CPU},
    "vmx_sipi_signal_test": {"SKIP: vmx_sipi_signal_test : CPU count < 2": ONE_CPU},
    "vmx_pf_exception_test_fep": {"SKIP: Forced emulation prefix (FEP) not available": "a debugging aid of KVM's"},
    "atomic_switch_overflow_msrs_test": {
        "VM-Exit failure on vmlaunch (reason=0x80000022, qual=0x201)":
            "the test wants this exit, for the 513th entry, yet its framework aborts for it; what a processor does "
            "with lists longer than 512 is not defined (SDM 3D A.6)",
    },
}

/*
 * Times a command on whatever machine it runs.
 *
 * Usage: job NAME FILE OUTPUT COMMAND [ARGUMENT...]
 *
 * COMMAND's standard output goes to OUTPUT. Prints "GUISE-JOB NAME seconds checksum", by the clock
 * on the wall, with the FNV-1a checksum of FILE's bytes as they are afterwards. Status 1 when the
 * command cannot be run or fails, and nothing is printed to standard output then.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int run(const char *output, char **command)
{
	pid_t pid = fork();
	if (pid < 0)
		return fail("fork");
	if (pid == 0) {
		int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		if (fd < 0 || dup2(fd, 1) < 0)
			_exit(fail(output));
		close(fd);
		execvp(command[0], command);
		_exit(fail(command[0]));
	}
	int status;
	if (waitpid(pid, &status, 0) != pid)
		return fail("waitpid");
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		fprintf(stderr, "error: %s ended with wait status %#x\n", command[0], status);
		return 1;
	}
	return 0;
}

static int checksum(const char *path, uint64_t *sum)
{
	static uint8_t buffer[65536];
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return fail(path);
	*sum = 0xcbf29ce484222325u;
	ssize_t n;
	while ((n = read(fd, buffer, sizeof(buffer))) > 0)
		for (ssize_t i = 0; i < n; i++)
			*sum = (*sum ^ buffer[i]) * 0x100000001b3u;
	close(fd);
	return n < 0 ? fail(path) : 0;
}

int main(int argc, char **argv)
{
	if (argc < 5) {
		fprintf(stderr, "usage: job NAME FILE OUTPUT COMMAND [ARGUMENT...]\n");
		return 1;
	}
	double begin = now();
	if (run(argv[3], argv + 4))
		return 1;
	double seconds = now() - begin;
	uint64_t sum;
	if (checksum(argv[2], &sum))
		return 1;
	printf("GUISE-JOB %s %.6f %016" PRIx64 "\n", argv[1], seconds, sum);
	return 0;
}

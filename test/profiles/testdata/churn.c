// A storm of new programs and libraries: each child is a copy of this file that
// nobody has seen before, and loads a copy of a library likewise.
//
//   churn DIR LIBRARY.so    children until it is killed
//   churn child LIBRARY.so  works, and works in the library
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long sink;

/* So long that a clock of 97 Hz sees most of them. */
static void burn(void)
{
	struct timespec t;
	do {
		for (int i = 0; i < 10000; i++)
			sink += i;
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	} while (t.tv_nsec % 1000000000 < 8000000);
}

static int child(const char *library)
{
	burn();
	void *so = dlopen(library, RTLD_NOW);
	if (!so)
		return 3;
	((void (*)(void))dlsym(so, "burn_in_library"))();
	dlclose(so);
	return 0;
}

static void copy(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
	while (sendfile(out, in, 0, 1 << 20) > 0)
		;
	/* Something that no other copy has. */
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	if (write(out, &t, sizeof(t)) < 0)
		_exit(4);
	close(in);
	close(out);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	if (!strcmp(argv[1], "child"))
		return child(argv[2]);
	for (unsigned n = 0;; n++) {
		char exe[4096], so[4096];
		snprintf(exe, sizeof(exe), "%s/%d-%u", argv[1], getpid(), n);
		snprintf(so, sizeof(so), "%s/%d-%u.so", argv[1], getpid(), n);
		copy("/proc/self/exe", exe);
		copy(argv[2], so);
		pid_t pid = fork();
		if (!pid) {
			execl(exe, exe, "child", so, (char *)0);
			_exit(5);
		}
		int status;
		waitpid(pid, &status, 0);
		unlink(exe);
		unlink(so);
		if (status)
			return 6;
		/* Three of these are 40 programs a second at most: the unwinder has room for 40,000 pages of code of the last five minutes. */
		nanosleep(&(struct timespec){ .tv_nsec = 75000000 }, 0);
		if (n % 10 == 0) {
			printf("%u\n", n);
			fflush(stdout);
		}
	}
}

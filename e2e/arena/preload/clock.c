// The wall clock of a program that loads this before its libraries: the
// kernel's, and as many seconds as a file says. Monotonic clocks stay right.
//
// It asks the kernel itself, and allocates nothing: an allocator may ask for the
// time while it is being set up.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t right;
static volatile int64_t *offset;

static time_t shift(void) {
	if (!offset) {
		const char *path = getenv("MSRCHAT_CLOCK");
		int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof right, PROT_READ, MAP_SHARED, file, 0);
		if (file >= 0)
			close(file);
		offset = page == MAP_FAILED ? &right : page;
	}
	return *offset;
}

int clock_gettime(clockid_t id, struct timespec *t) {
	int failed = syscall(SYS_clock_gettime, id, t);
	if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		t->tv_sec += shift();
	return failed;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
	int failed = syscall(SYS_gettimeofday, t, zone);
	if (!failed)
		t->tv_sec += shift();
	return failed;
}

time_t time(time_t *t) {
	struct timeval now;
	gettimeofday(&now, 0);
	if (t)
		*t = now.tv_sec;
	return now.tv_sec;
}

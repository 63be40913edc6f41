/* A program for musl, which Debian packages, though no program that is linked to it: threads, a
 * child, time, sockets, files. It ends with 0 where all of that works. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int total;

static void must(int good, const char *what) {
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void *count(void *unused) {
    for (int i = 0; i < 1000; i++) {
        pthread_mutex_lock(&lock);
        total++;
        pthread_mutex_unlock(&lock);
    }
    return unused;
}

int main(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) must(pthread_create(&threads[i], 0, count, 0) == 0, "pthread_create");
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    must(total == 4000, "threads");

    int pair[2];
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    pid_t child = fork();
    must(child >= 0, "fork");
    if (child == 0) _exit(write(pair[1], "x", 1) == 1 ? 7 : 1);
    struct pollfd readable = {.fd = pair[0], .events = POLLIN};
    must(poll(&readable, 1, 10000) == 1, "poll");
    int status;
    must(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7, "waitpid");

    struct timespec short_time = {.tv_nsec = 1000000}, now;
    must(nanosleep(&short_time, 0) == 0 && clock_gettime(CLOCK_REALTIME, &now) == 0, "time");

    char path[] = "/tmp/musl-XXXXXX";
    int file = mkstemp(path);
    struct stat found;
    must(file >= 0 && ftruncate(file, 10) == 0 && fstatat(AT_FDCWD, path, &found, 0) == 0 && found.st_size == 10, "files");
    must(faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) == 0 && unlink(path) == 0, "faccessat");
    FILE *pipe = popen("echo from a shell", "r");
    char line[64];
    must(pipe && fgets(line, sizeof line, pipe) && pclose(pipe) == 0, "popen");
    puts("musl works");
    return 0;
}

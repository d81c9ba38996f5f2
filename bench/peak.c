/* peak REPORT PROGRAM ARGUMENTS...: runs the program and writes to REPORT the seconds it took, and the largest
 * resident memory of it or of a process it started, in KiB. Python cannot say the latter: a child's peak begins
 * with the memory of whoever forked it, and this program is small. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    int status;
    struct rusage usage;
    if (argc < 3)
        return 64;
    double began = now();
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child)
        return 71;
    FILE *report = fopen(argv[1], "w");
    if (report == NULL)
        return 73;
    fprintf(report, "%.6f %ld\n", now() - began, usage.ru_maxrss);
    if (fclose(report) != 0)
        return 73;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <sys/socket.h>
#include <unistd.h>

static void ignore(int s) { (void)s; }

int main(void)
{
    char b[10];
    int p[2];
    struct sigaction act = {.sa_handler = ignore};
    sigaction(SIGCHLD, &act, NULL);
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    if (fork() == 0) {
        usleep(100000);
        if (fork() == 0) {
            usleep(400000);
            write(p[1], "late", 4);
            _exit(0);
        }
        _exit(7);
    }
    ssize_t n;
    int status = 0;
    while ((n = read(p[0], b, sizeof b)) < 0 && errno == EINTR)
        wait(&status);
    printf("%.*s, child exited with %d\n", (int)n, b, WEXITSTATUS(status));
    return WEXITSTATUS(status);
}

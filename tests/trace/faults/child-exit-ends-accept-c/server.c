#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(int s) { (void)s; while (waitpid(-1, NULL, WNOHANG) > 0); }

int main(int argc, char **argv)
{
    struct sigaction act = {.sa_handler = reap};
    sigaction(SIGCHLD, &act, NULL);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 5) < 0) {
        perror("listen");
        exit(1);
    }
    for (;;) {
        int c = accept(fd, NULL, NULL);
        if (c < 0) {
            perror("accept");
            exit(1);
        }
        if (fork() == 0) {
            char b[100];
            ssize_t n = read(c, b, sizeof b);
            write(c, b, n);
            exit(0);
        }
        close(c);
    }
}

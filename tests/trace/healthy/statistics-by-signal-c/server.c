#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t wanted;
static void on_usr1(int s) { (void)s; wanted = 1; }

int main(int argc, char **argv)
{
    int clients = 0, one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sigaction act = {.sa_handler = on_usr1};
    sigaction(SIGUSR1, &act, NULL);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 5) < 0)
        return 2;
    pid_t child = fork();
    if (child == 0) {
        usleep(200000);
        kill(getppid(), SIGUSR1);
        _exit(0);
    }
    while (!wanted || clients < 1) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, -1) < 0) {
            if (errno == EINTR && wanted)
                printf("%d clients\n", clients);
            continue;
        }
        int c = accept(fd, NULL, NULL);
        write(c, "hello\n", 6);
        close(c);
        clients++;
    }
    waitpid(child, NULL, 0);
    return 5;
}

#include <stdlib.h>
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int port;

static void reap(int sig)
{
    int saved = errno;
    (void)sig;
    while (waitpid(-1, NULL, WNOHANG) > 0) { }
    errno = saved;
}

static void converse(int fd)
{
    FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
    char line[256];
    int n = 0;
    while (fgets(line, sizeof line, in)) {
        fprintf(out, "%d %s", ++n, line);
        if (fflush(out)) break;
    }
    fclose(out);
    fclose(in);
}

int main(int argc, char **argv)
{
    port = atoi(argv[1]);
    int one = 1, ls = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sigaction sa = {.sa_handler = reap};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sigaction(SIGCHLD, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) || listen(ls, 32)) { perror("listen"); return 1; }
    for (int served = 0; served < 4;) {
        int fd = accept(ls, 0, 0);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            perror("accept");
            return 1;
        }
        served++;
        pid_t pid = fork();
        if (pid == 0) {
            close(ls);
            converse(fd);
            _exit(0);
        }
        if (pid < 0) perror("fork");
        close(fd);
    }
    close(ls);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) { }
    return 0;
}

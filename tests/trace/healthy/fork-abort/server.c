#include <stdlib.h>
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static int port;

static void reap(int sig)
{
    int saved = errno;
    (void)sig;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    errno = saved;
}

static int send_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        p += k;
        n -= k;
    }
    return 0;
}

static void child(int fd)
{
    char line[256], out[300];
    size_t have = 0;
    struct timeval idle = { 1, 0 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
    for (;;) {
        char *nl = memchr(line, '\n', have);
        if (nl) {
            size_t len = nl - line + 1;
            int k = snprintf(out, sizeof out, "[%d] %.*s", (int)len - 1, (int)len, line);
            if (send_all(fd, out, k))
                break;
            have -= len;
            memmove(line, line + len, have);
            continue;
        }
        if (have == sizeof line)
            break;
        ssize_t n = recv(fd, line + have, sizeof line - have, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            send_all(fd, "idle, bye\n", 10);
            break;
        }
        if (n < 0 && errno == ECONNRESET) {
            puts("client aborted");
            fflush(stdout);
            break;
        }
        if (n <= 0)
            break;
        have += n;
    }
    close(fd);
}

int main(int argc, char **argv)
{
    port = atoi(argv[1]);
    int one = 1, ls = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    struct sigaction sa = { .sa_handler = reap };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sigaction(SIGCHLD, &sa, NULL);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) || listen(ls, 16)) {
        perror("listen");
        return 1;
    }
    for (;;) {
        int fd = accept(ls, NULL, NULL);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            perror("accept");
            return 1;
        }
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(ls);
            child(fd);
            _exit(0);
        }
        if (pid < 0)
            perror("fork");
        close(fd);
    }
}

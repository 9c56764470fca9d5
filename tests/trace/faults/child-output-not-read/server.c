#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Answer each client with the output of a command. */
int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    char buf[4096];

    (void)argc;
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 5) < 0)
        return 1;
    for (;;) {
        int fd = accept(listener, NULL, NULL), out[2], status;
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        if (n <= 0 || pipe(out) < 0)
            return 1;
        pid_t pid = fork();
        if (pid == 0) {
            dup2(out[1], 1);
            close(out[0]);
            close(out[1]);
            execlp("seq", "seq", "1", "50000", (char *)NULL);
            _exit(127);
        }
        close(out[1]);
        waitpid(pid, &status, 0);
        while ((n = read(out[0], buf, sizeof buf)) > 0)
            send(fd, buf, (size_t)n, 0);
        close(out[0]);
        close(fd);
    }
}

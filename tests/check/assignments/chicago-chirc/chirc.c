#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE 512

static void serve(int fd)
{
    char buffer[LINE + 1], nick[64] = "", user[64] = "", reply[LINE];
    size_t used = 0;
    ssize_t n;

    while ((n = recv(fd, buffer + used, LINE - used, 0)) > 0) {
        char *end;
        used += n;
        buffer[used] = 0;
        while ((end = strstr(buffer, "\r\n"))) {
            *end = 0;
            sscanf(buffer, "NICK %63s", nick);
            sscanf(buffer, "USER %63s", user);
            used -= end + 2 - buffer;
            memmove(buffer, end + 2, used + 1);
            if (*nick && *user) {
                int size = snprintf(reply, sizeof reply,
                                    ":localhost 001 %s :Welcome to the Internet Relay Network %s!%s@localhost\r\n",
                                    nick, nick, user);
                send(fd, reply, size, MSG_NOSIGNAL);
                *nick = *user = 0;
            }
        }
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1])) };
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1, fd;

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 10) < 0) {
        perror("chirc");
        return 1;
    }
    while ((fd = accept(listener, NULL, NULL)) >= 0 || errno == ECONNABORTED) {
        serve(fd);
        close(fd);
    }
    return 1;
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    (void)argc;
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in a = {0};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    a.sin_family = AF_INET;
    a.sin_port = htons(atoi(argv[1]));
    a.sin_addr.s_addr = htonl(INADDR_ANY);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0) { perror("bind"); return 1; }
    listen(fd, 5);
    for (;;) {
        int c = accept(fd, NULL, NULL);
        char name[128], reply[256];
        int i = 0;
        while (i < 127 && read(c, &name[i], 1) == 1 && name[i] != '\0')
            i++;
        name[i] = 0;
        snprintf(reply, sizeof reply, "hello %s", name);
        write(c, reply, strlen(reply) + 1);
        close(c);
    }
}

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    fd_set master, set;
    int max, i;
    char buf[512];
    struct sockaddr_in addr = {.sin_family = AF_INET};
    int s = socket(AF_INET, SOCK_STREAM, 0);

    addr.sin_port = htons(atoi(argv[1]));
    if (bind(s, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(s, 16) < 0) {
        perror("server");
        return 1;
    }
    FD_ZERO(&master);
    FD_SET(s, &master);
    max = s;
    for (;;) {
        set = master;
        if (select(max + 1, &set, NULL, NULL, NULL) < 0) {
            perror("select");
            sleep(1);
            continue;
        }
        for (i = 0; i <= max; i++) {
            if (!FD_ISSET(i, &set))
                continue;
            if (i == s) {
                int c = accept(s, NULL, NULL);
                FD_SET(c, &master);
                if (c > max)
                    max = c;
            } else {
                ssize_t n = recv(i, buf, sizeof buf, 0);
                if (n <= 0)
                    close(i);
                else
                    send(i, buf, n, 0);
            }
        }
    }
}

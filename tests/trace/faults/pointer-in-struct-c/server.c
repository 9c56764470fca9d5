#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct message {
    int type;
    char *text;
};

int main(int argc, char *argv[])
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    struct message m;
    int s = socket(AF_INET, SOCK_STREAM, 0), c;

    addr.sin_port = htons(atoi(argv[1]));
    if (bind(s, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(s, 16) < 0) {
        perror("server");
        return 1;
    }
    c = accept(s, NULL, NULL);
    if (recv(c, &m, sizeof m, MSG_WAITALL) == sizeof m) {
        printf("type %d: %s\n", m.type, m.text);
        send(c, "ok", 2, 0);
    }
    close(c);
    return 0;
}

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
    char answer[16];
    int s = socket(AF_INET, SOCK_STREAM, 0);

    addr.sin_port = htons(atoi(argv[1]));
    addr.sin_addr.s_addr = inet_addr("127.0.0.1");
    if (connect(s, (struct sockaddr *)&addr, sizeof addr) < 0) {
        perror("connect");
        return 1;
    }
    m.type = 7;
    m.text = strdup("hello from the client");
    send(s, &m, sizeof m, 0);
    ssize_t n = recv(s, answer, sizeof answer, 0);
    if (n <= 0) {
        fprintf(stderr, "no answer\n");
        return 1;
    }
    printf("%.*s\n", (int)n, answer);
    return 0;
}

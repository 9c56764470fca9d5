#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    struct sockaddr_in addr = {0};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    const char *text[] = {"hello world", "how are you"};
    char answer[100];

    addr.sin_family = AF_INET;
    addr.sin_port = htons(atoi(argv[1]));
    addr.sin_addr.s_addr = inet_addr("127.0.0.1");
    if (connect(s, (struct sockaddr *)&addr, sizeof addr) < 0)
        return 1;
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(text[i]);
        send(s, &n, sizeof n, 0);
        send(s, text[i], n, 0);
    }
    ssize_t got = recv(s, answer, sizeof answer, 0);
    printf("%zd\n", got);
    return 0;
}

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    struct sockaddr_in addr = {0};
    int s = socket(AF_INET, SOCK_STREAM, 0), c;
    uint32_t n;
    char buf[4096];

    addr.sin_family = AF_INET;
    addr.sin_port = htons(atoi(argv[1]));
    addr.sin_addr.s_addr = INADDR_ANY;
    if (bind(s, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(s, 10) < 0)
        return 1;
    c = accept(s, NULL, NULL);
    while (recv(c, &n, sizeof n, MSG_WAITALL) == sizeof n) {
        if (recv(c, buf, n, MSG_WAITALL) != n)
            break;
        printf("%.*s\n", (int)n, buf);
    }
    return 0;
}

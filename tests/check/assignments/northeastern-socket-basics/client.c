#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char line[8194], flag[8194];
    struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;

    if (argc != 4 || getaddrinfo(argv[1], argv[2], &hints, &found) != 0) {
        fprintf(stderr, "usage: client HOST PORT ID\n");
        return 1;
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, found->ai_addr, found->ai_addrlen) < 0) {
        perror("connect");
        return 1;
    }
    FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
    fprintf(out, "ex_string HELLO %s\n", argv[3]);
    fflush(out);
    while (fgets(line, sizeof line, in)) {
        if (sscanf(line, "ex_string BYE %8000s", flag) == 1) {
            printf("%s\n", flag);
            return 0;
        }
        if (strncmp(line, "ex_string FIND ", 15) != 0)
            break;
        char symbol = line[15];
        int count = 0;
        for (char *at = line + 17; *at; at++)
            count += *at == symbol;
        fprintf(out, "ex_string COUNT %d\n", count);
        fflush(out);
    }
    fprintf(stderr, "unexpected end\n");
    return 1;
}

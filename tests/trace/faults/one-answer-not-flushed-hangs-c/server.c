/* Adds numbers: "add 3", "total". stdio in both directions. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bind(l, (struct sockaddr *)&a, sizeof a);
    listen(l, 8);
    for (;;) {
        int c = accept(l, NULL, NULL);
        FILE *in = fdopen(c, "r"), *out = fdopen(dup(c), "w");
        char line[200];
        int total = 0;
        while (fgets(line, sizeof line, in)) {
            if (strncmp(line, "add ", 4) == 0) {
                total += atoi(line + 4);
                fprintf(out, "ok\n");
                fflush(out);
            } else {
                fprintf(out, "%d\n", total);
            }
        }
        fclose(out);
        fclose(in);
    }
}

#define _GNU_SOURCE
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int listener = socket(AF_INET6, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(argv[1])), .sin6_addr = in6addr_any};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 5)) return 1;
    int conn = accept(listener, NULL, NULL);
    FILE *in = fdopen(conn, "r"), *out = fdopen(dup(conn), "w");
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    while ((n = getline(&line, &size, in)) > 0) {
        for (ssize_t i = 0; i < n; i++) line[i] = toupper(line[i]);
        fwrite(line, 1, n, out);
        fflush(out);
    }
    fclose(out);
    fclose(in);
    close(listener);
    free(line);
    return 0;
}

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in server = {AF_INET, htons(atoi(argv[1]))};
    inet_pton(AF_INET, "127.0.0.1", &server.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&server, sizeof server)) return 1;
    char request[200], answer[1000];
    snprintf(request, sizeof request, "GET /status HTTP/1.1\nHost: localhost\n\n");
    send(s, request, strlen(request), 0);
    int n = recv(s, answer, sizeof answer - 1, 0);
    if (n > 0) printf("%.*s\n", n, answer);
    close(s);
}

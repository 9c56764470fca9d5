#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int one = 1, w = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    char question[256], answer[512] = "";
    setsockopt(w, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(w, (void *)&a, sizeof a);
    listen(w, 5);
    int c = accept(w, 0, 0);
    recv(c, question, sizeof question, 0);
    snprintf(answer, sizeof answer, "21 degrees");
    write(c, answer, sizeof answer);
    close(c);
}

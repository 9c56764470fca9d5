/* Sends one line to a TCP server and shows the answer: tcp_client ADDRESS PORT */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    char sentence[1024] = "", modified[1024];
    struct sockaddr_in server = {.sin_family = AF_INET};

    if (argc != 3) {
        fprintf(stderr, "usage: tcp_client ADDRESS PORT\n");
        return 2;
    }
    server.sin_addr.s_addr = inet_addr(argv[1]);
    server.sin_port = htons(atoi(argv[2]));
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&server, sizeof server) < 0) {
        perror("connect");
        return 1;
    }
    printf("Input lowercase sentence: ");
    if (fgets(sentence, sizeof sentence, stdin) == NULL)
        return 1;
    sentence[strcspn(sentence, "\n")] = '\0';
    /* Habits: no newline is sent, so nothing marks the end; and one recv is taken for the whole answer. */
    send(s, sentence, strlen(sentence), 0);
    int n = recv(s, modified, sizeof modified, 0);
    printf("From server: %.*s\n", n, modified);
    close(s);
    return 0;
}

/* Sends one line as a datagram and shows the answer: udp_client ADDRESS PORT */
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
    socklen_t size = sizeof server;

    if (argc != 3) {
        fprintf(stderr, "usage: udp_client ADDRESS PORT\n");
        return 2;
    }
    server.sin_addr.s_addr = inet_addr(argv[1]);
    server.sin_port = htons(atoi(argv[2]));
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    printf("Input lowercase sentence: ");
    if (fgets(sentence, sizeof sentence, stdin) == NULL)
        return 1;
    sentence[strcspn(sentence, "\n")] = '\0';
    sendto(s, sentence, strlen(sentence), 0, (struct sockaddr *)&server, size);
    /* Habits: it waits for ever if either datagram is lost, and takes an answer from anyone. */
    int n = recvfrom(s, modified, sizeof modified, 0, (struct sockaddr *)&server, &size);
    printf("From server: %.*s\n", n, modified);
    close(s);
    return 0;
}

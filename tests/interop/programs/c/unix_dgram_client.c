/* Sends one line as a UNIX datagram and shows the answer: unix_dgram_client PATH OWN-PATH */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    char sentence[1024] = "", modified[1024];
    struct sockaddr_un server = {.sun_family = AF_UNIX}, me = {.sun_family = AF_UNIX};

    if (argc != 3) {
        fprintf(stderr, "usage: unix_dgram_client PATH OWN-PATH\n");
        return 2;
    }
    strncpy(server.sun_path, argv[1], sizeof server.sun_path - 1);
    strncpy(me.sun_path, argv[2], sizeof me.sun_path - 1);
    int s = socket(AF_UNIX, SOCK_DGRAM, 0);
    /* Without a name of its own no answer could reach it. */
    unlink(argv[2]);
    if (bind(s, (struct sockaddr *)&me, sizeof me) < 0) {
        perror("bind");
        return 1;
    }
    if (fgets(sentence, sizeof sentence, stdin) == NULL)
        return 1;
    sentence[strcspn(sentence, "\n")] = '\0';
    if (sendto(s, sentence, strlen(sentence), 0, (struct sockaddr *)&server, sizeof server) < 0) {
        perror("sendto");
        return 1;
    }
    int n = recvfrom(s, modified, sizeof modified, 0, NULL, NULL);
    printf("From server: %.*s\n", n, modified);
    close(s);
    unlink(argv[2]);
    return 0;
}

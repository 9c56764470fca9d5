/* Sends one line through a socket in the file system and shows the answer: unix_client PATH */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    char sentence[1024] = "", modified[1024];
    struct sockaddr_un server = {.sun_family = AF_UNIX};

    if (argc != 2) {
        fprintf(stderr, "usage: unix_client PATH\n");
        return 2;
    }
    strncpy(server.sun_path, argv[1], sizeof server.sun_path - 1);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&server, sizeof server) < 0) {
        perror("connect");
        return 1;
    }
    if (fgets(sentence, sizeof sentence, stdin) == NULL)
        return 1;
    sentence[strcspn(sentence, "\n")] = '\0';
    /* Habit: the zero at the end of the string goes out too. */
    if (write(s, sentence, strlen(sentence) + 1) < 0)
        perror("write");
    int n = read(s, modified, sizeof modified);
    printf("%d bytes: %.*s\n", n, n, modified);
    close(s);
    return 0;
}

/* Talks with one client in buffers of 80 bytes until "exit". Prints its port. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE 80

static void talk(int client)
{
    char buffer[SIZE];

    for (;;) {
        memset(buffer, 0, SIZE);
        if (read(client, buffer, SIZE) <= 0)
            break;
        printf("From client: %s", buffer);
        for (int i = 0; i < SIZE; i++)
            buffer[i] = toupper((unsigned char)buffer[i]);
        /* Habit: the answer is the whole buffer, however short the text is. */
        if (write(client, buffer, SIZE) < 0)
            break;
        if (strncmp(buffer, "EXIT", 4) == 0)
            break;
    }
}

int main(void)
{
    struct sockaddr_in me = {.sin_family = AF_INET};
    socklen_t size = sizeof me;

    setlinebuf(stdout);
    int welcome = socket(AF_INET, SOCK_STREAM, 0);
    bind(welcome, (struct sockaddr *)&me, sizeof me);
    listen(welcome, 5);
    getsockname(welcome, (struct sockaddr *)&me, &size);
    printf("port %d\n", ntohs(me.sin_port));

    /* Habit: it serves exactly one client, then it is over. */
    int client = accept(welcome, NULL, NULL);
    talk(client);
    printf("Server exit.\n");
    close(client);
    close(welcome);
    return 0;
}

/* Capitalises what one recv gives, for one client after another. Prints its port. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    struct sockaddr_in me = {.sin_family = AF_INET};
    socklen_t size = sizeof me;
    char buffer[1024];

    setlinebuf(stdout);
    int welcome = socket(AF_INET, SOCK_STREAM, 0);
    bind(welcome, (struct sockaddr *)&me, sizeof me);
    listen(welcome, 1);
    getsockname(welcome, (struct sockaddr *)&me, &size);
    printf("port %d\n", ntohs(me.sin_port));

    for (;;) {
        int client = accept(welcome, NULL, NULL);
        /* Habits: one recv is taken for the whole message, and a short send is not looked for. */
        int n = recv(client, buffer, sizeof buffer, 0);
        for (int i = 0; i < n; i++)
            buffer[i] = toupper((unsigned char)buffer[i]);
        send(client, buffer, n > 0 ? n : 0, 0);
        close(client);
    }
}

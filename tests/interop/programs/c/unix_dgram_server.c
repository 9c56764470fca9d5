/* Sends each UNIX datagram back in capitals: unix_dgram_server PATH */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    struct sockaddr_un me = {.sun_family = AF_UNIX}, client;
    char buffer[1024];

    if (argc != 2) {
        fprintf(stderr, "usage: unix_dgram_server PATH\n");
        return 2;
    }
    setlinebuf(stdout);
    strncpy(me.sun_path, argv[1], sizeof me.sun_path - 1);
    unlink(argv[1]);
    int s = socket(AF_UNIX, SOCK_DGRAM, 0);
    bind(s, (struct sockaddr *)&me, sizeof me);
    printf("listening on %s\n", argv[1]);

    for (;;) {
        socklen_t size = sizeof client;
        int n = recvfrom(s, buffer, sizeof buffer, 0, (struct sockaddr *)&client, &size);
        for (int i = 0; i < n; i++)
            buffer[i] = toupper((unsigned char)buffer[i]);
        if (sendto(s, buffer, n > 0 ? n : 0, 0, (struct sockaddr *)&client, size) < 0)
            perror("sendto"); /* a client without a name cannot be answered */
    }
}

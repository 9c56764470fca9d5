#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in a = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    const char *text = "the quick brown fox\njumps over\nthe lazy dog\n";
    char answer[100] = "";
    if (connect(s, (struct sockaddr *)&a, sizeof a) < 0) return perror("connect"), 1;
    write(s, text, strlen(text));
    read(s, answer, sizeof answer - 1);
    printf("%s", answer);
}

/*
 * What a program in C gets: lines with a family ('0', '4' or '6') and a name, and
 * for each the line again, what getaddrinfo returned, and addresses. With an
 * argument all are asked at once, each by a process.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void ask(const char *line)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL, *a;
	char text[64];
	int code;

	hints.ai_family = line[0] == '4' ? AF_INET : line[0] == '6' ? AF_INET6 : AF_UNSPEC;
	code = getaddrinfo(line + 1, NULL, &hints, &found);
	printf("%s\t%d", line, code);
	for (a = found; a; a = a->ai_next) {
		if (a->ai_family == AF_INET)
			inet_ntop(AF_INET, &((struct sockaddr_in *)a->ai_addr)->sin_addr, text, sizeof text);
		else
			inet_ntop(AF_INET6, &((struct sockaddr_in6 *)a->ai_addr)->sin6_addr, text, sizeof text);
		printf(" %s", text);
	}
	printf("\n");
	fflush(stdout);
	if (found)
		freeaddrinfo(found);
}

int main(int argc, char **argv)
{
	char line[4096];

	(void)argv;
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (argc == 1) {
			ask(line);
		} else if (fork() == 0) {
			ask(line);
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
	return 0;
}

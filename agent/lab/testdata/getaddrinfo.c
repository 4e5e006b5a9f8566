/*
 * What a program in C gets: lines with a family ('0', '4' or '6') and a name, and
 * for each the name again, what getaddrinfo returned, and addresses.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(void)
{
	char line[4096], text[64];

	while (fgets(line, sizeof line, stdin)) {
		struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL, *a;
		int code;

		line[strcspn(line, "\n")] = 0;
		hints.ai_family = line[0] == '4' ? AF_INET : line[0] == '6' ? AF_INET6 : AF_UNSPEC;
		code = getaddrinfo(line + 1, NULL, &hints, &found);
		printf("%s\t%d", line, code);
		for (a = found; a; a = a->ai_next) {
			if (a->ai_family == AF_INET) {
				inet_ntop(AF_INET, &((struct sockaddr_in *)a->ai_addr)->sin_addr, text, sizeof text);
				printf(" %s", text);
			} else {
				inet_ntop(AF_INET6, &((struct sockaddr_in6 *)a->ai_addr)->sin6_addr, text, sizeof text);
				printf(" %s", text);
			}
		}
		printf("\n");
		if (found)
			freeaddrinfo(found);
	}
	return 0;
}

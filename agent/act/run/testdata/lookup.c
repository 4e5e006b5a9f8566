/* Looks names up with the resolver of libc, and prints the addresses. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
	struct addrinfo hints, *all, *a;
	char text[64];
	int failed = 0;
	for (int i = 1; i < argc; i++) {
		memset(&hints, 0, sizeof hints);
		hints.ai_socktype = SOCK_STREAM;
		int err = getaddrinfo(argv[i], 0, &hints, &all);
		if (err) {
			printf("%s: %s\n", argv[i], gai_strerror(err));
			failed = 1;
			continue;
		}
		for (a = all; a; a = a->ai_next) {
			void *addr = a->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr
			                                     : (void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
			puts(inet_ntop(a->ai_family, addr, text, sizeof text));
		}
		freeaddrinfo(all);
	}
	return failed;
}

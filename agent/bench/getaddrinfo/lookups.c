/*
 * lookups NAME CALLERS EACH looks a name up from threads, as a program that is
 * linked with the C library does, and prints how long each took, in ns.
 */
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static const char *name;
static int each;

static void *caller(void *took)
{
	long *ns = took;
	struct timespec a, b;
	int i;

	for (i = 0; i < each; i++) {
		struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;

		clock_gettime(CLOCK_MONOTONIC, &a);
		if (getaddrinfo(name, NULL, &hints, &found))
			exit(1);
		clock_gettime(CLOCK_MONOTONIC, &b);
		freeaddrinfo(found);
		ns[i] = (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int callers, i;
	pthread_t *threads;
	long *took;

	if (argc != 4)
		return 2;
	name = argv[1];
	callers = atoi(argv[2]);
	each = atoi(argv[3]);
	threads = calloc(callers, sizeof *threads);
	took = calloc((size_t)callers * each, sizeof *took);
	for (i = 0; i < callers; i++)
		if (pthread_create(&threads[i], NULL, caller, took + (size_t)i * each))
			return 1;
	for (i = 0; i < callers; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < callers * each; i++)
		printf("%ld\n", took[i]);
	return 0;
}

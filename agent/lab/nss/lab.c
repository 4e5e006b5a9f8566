/*
 * libnss_lab.so.2, a source of names for "hosts: lab" in nsswitch.conf: what
 * only programs that ask the C library know, as with a VPN's. It reads the file
 * TABLE at each question; a line of it is a name, or *.DOMAIN for all names
 * below, and then either addresses, or
 *
 *	sleep SECONDS	no answer until then, and none after
 *	abort		the end of the program that asks
 *
 * The first line that fits counts.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <nss.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 64

struct address {
	int family;
	unsigned char bytes[16];
};

static int fits(const char *pattern, const char *name)
{
	size_t p, n = strlen(name);

	if (n > 0 && name[n - 1] == '.')
		n--;
	if (strncmp(pattern, "*.", 2) != 0)
		return strlen(pattern) == n && strncasecmp(pattern, name, n) == 0;
	p = strlen(++pattern);
	return n > p && strncasecmp(name + n - p, pattern, p) == 0;
}

/* addresses reads those of a line, and does what else it says. */
static int addresses(char *words, struct address *found)
{
	int n = 0;
	char *rest, *word;

	for (word = strtok_r(words, " \t\n", &rest); word && n < MOST; word = strtok_r(NULL, " \t\n", &rest)) {
		memset(&found[n], 0, sizeof found[n]);
		if (strcmp(word, "abort") == 0)
			abort();
		if (strcmp(word, "sleep") == 0) {
			word = strtok_r(NULL, " \t\n", &rest);
			sleep(word ? atoi(word) : 0);
			return 0;
		}
		if (inet_pton(AF_INET, word, found[n].bytes) == 1)
			found[n++].family = AF_INET;
		else if (inet_pton(AF_INET6, word, found[n].bytes) == 1)
			found[n++].family = AF_INET6;
	}
	return n;
}

/* known returns how many addresses a name has, or -1 when nothing is known of it. */
static int known(const char *name, struct address *found)
{
	char line[4096], pattern[1024];
	int skip, n = -1;
	FILE *table = fopen(TABLE, "re");

	if (!table)
		return -1;
	while (n < 0 && fgets(line, sizeof line, table))
		if (sscanf(line, "%1023s%n", pattern, &skip) == 1 && fits(pattern, name))
			n = addresses(line + skip, found);
	fclose(table);
	return n;
}

static enum nss_status none(int n, int *errnop, int *herrnop)
{
	*errnop = ENOENT;
	*herrnop = n < 0 ? HOST_NOT_FOUND : NO_DATA;
	return NSS_STATUS_NOTFOUND;
}

static enum nss_status too_small(int *errnop, int *herrnop)
{
	*errnop = ERANGE;
	*herrnop = NETDB_INTERNAL;
	return NSS_STATUS_TRYAGAIN;
}

static char *aligned(char *p)
{
	return (char *)(((uintptr_t)p + 15) & ~(uintptr_t)15);
}

enum nss_status _nss_lab_gethostbyname4_r(const char *name, struct gaih_addrtuple **first, char *buffer, size_t size,
					  int *errnop, int *herrnop, int32_t *ttlp)
{
	struct address found[MOST];
	int i, n = known(name, found);
	struct gaih_addrtuple *tuple, **next = first;
	char *own = aligned(buffer + strlen(name) + 1);

	if (n <= 0)
		return none(n, errnop, herrnop);
	if (own + n * sizeof *tuple > buffer + size)
		return too_small(errnop, herrnop);
	strcpy(buffer, name);
	for (i = 0; i < n; i++) {
		tuple = i == 0 && *first ? *first : (struct gaih_addrtuple *)own + i;
		memset(tuple, 0, sizeof *tuple);
		tuple->name = buffer;
		tuple->family = found[i].family;
		memcpy(tuple->addr, found[i].bytes, 16);
		*next = tuple;
		next = &tuple->next;
	}
	if (ttlp)
		*ttlp = 30;
	*herrnop = NETDB_SUCCESS;
	return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_lab_gethostbyname2_r(const char *name, int family, struct hostent *host, char *buffer, size_t size,
					  int *errnop, int *herrnop)
{
	struct address found[MOST];
	int i, fit = 0, n = known(name, found), length = family == AF_INET6 ? 16 : 4;
	char **list = (char **)aligned(buffer + strlen(name) + 1), *bytes = (char *)(list + MOST + 2);

	for (i = 0; i < n; i++)
		if (found[i].family == family)
			found[fit++] = found[i];
	if (fit == 0)
		return none(n, errnop, herrnop);
	if (bytes + fit * length > buffer + size)
		return too_small(errnop, herrnop);
	host->h_name = strcpy(buffer, name);
	host->h_addrtype = family;
	host->h_length = length;
	host->h_addr_list = list;
	for (i = 0; i < fit; i++)
		list[i] = memcpy(bytes + i * length, found[i].bytes, length);
	list[fit] = list[fit + 1] = NULL;
	host->h_aliases = list + fit + 1;
	*herrnop = NETDB_SUCCESS;
	return NSS_STATUS_SUCCESS;
}

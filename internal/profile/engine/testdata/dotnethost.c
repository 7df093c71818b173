// Starts a program in a .NET runtime: dotnethost RUNTIME PROGRAM.dll
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*initialize)(const char *exe, const char *name, int n, const char **keys, const char **values, void **host, unsigned *domain);
typedef int (*execute)(void *host, unsigned domain, int argc, const char **argv, const char *assembly, unsigned *code);

int main(int argc, char **argv)
{
	char path[4096], *known = calloc(1, 1 << 20);
	unsigned domain, code = 1;
	struct dirent *e;
	void *so, *host;
	DIR *d;

	if (argc != 3 || !(d = opendir(argv[1])))
		return 2;
	while ((e = readdir(d)))
		if (strstr(e->d_name, ".dll"))
			sprintf(known + strlen(known), "%s/%s:", argv[1], e->d_name);
	strcat(known, argv[2]);
	setenv("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1", 1); /* no ICU needed */
	snprintf(path, sizeof(path), "%s/libcoreclr.so", argv[1]);
	if (!(so = dlopen(path, RTLD_NOW))) {
		fprintf(stderr, "%s\n", dlerror());
		return 2;
	}
	const char *keys[] = { "TRUSTED_PLATFORM_ASSEMBLIES" }, *values[] = { known };
	int rc = ((initialize)dlsym(so, "coreclr_initialize"))(argv[0], "host", 1, keys, values, &host, &domain);
	if (!rc)
		rc = ((execute)dlsym(so, "coreclr_execute_assembly"))(host, domain, 0, 0, argv[2], &code);
	if (rc)
		fprintf(stderr, "the runtime says %#x\n", rc);
	return rc ? 2 : (int)code;
}

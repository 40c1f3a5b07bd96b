/* Random numbers of the operating system that follow from a seed: loaded in front of the C library for one simulated run.
 *
 * Why: hash maps, the fairness of tokio's select and the seeds that the libraries draw would differ from run to run. Each
 * thread has its own sequence from the same seed, so what one thread draws does not depend on the others. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

static __thread uint64_t state;
static __thread int begun;

static uint64_t next(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

ssize_t getrandom(void *into, size_t bytes, unsigned int flags)
{
    (void)flags;
    if (!begun) {
        const char *seed = getenv("TIDEMILL_SIM_SEED");
        state = seed ? strtoull(seed, NULL, 10) : 0;
        begun = 1;
    }
    for (size_t at = 0; at < bytes; at++)
        ((unsigned char *)into)[at] = (unsigned char)next();
    return (ssize_t)bytes;
}

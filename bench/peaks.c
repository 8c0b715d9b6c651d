// What the machine could do at most: fused multiply-adds of 32-bit floats, and bytes read from memory.
//
//     cc -O3 -march=native -pthread bench/peaks.c -o peaks && ./peaks 2
//
// prints {"fma_gflops": …, "read_gb_s": …} for that many threads, each the best of nine tries. `bench/one_stream.py` builds and runs it, so that
// shares are of the same minute's machine.

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { SUMS = 12, ROUNDS = 4000000, TRIES = 9 };
static const size_t BYTES = (size_t)256 << 20; // of each thread, far more than the caches hold
typedef float floats __attribute__((vector_size(32)));
typedef uint64_t words __attribute__((vector_size(32)));

static pthread_barrier_t all;
static double fma_seconds[TRIES], read_seconds[TRIES];
static volatile float keep;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

// Twelve sums hide the latency of a multiply-add; the compiler contracts x * y + z into one.
static float multiply_adds(void) {
    floats x = (floats){} + 0.999999f, y = (floats){} + 1e-7f, sum[SUMS];
    for (int j = 0; j < SUMS; j++) sum[j] = (floats){} + (float)j; // unlike one another, or one would do for all
    for (int i = 0; i < ROUNDS; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < SUMS; j++) sum[j] = sum[j] * x + y;
        asm volatile("" : "+x"(x));
    }
    for (int j = 1; j < SUMS; j++) sum[0] += sum[j];
    return sum[0][0];
}

// Eight rows at once, which is what a matrix times a vector reads.
static uint64_t read_all(const words *from) {
    size_t row = BYTES / sizeof(words) / 8;
    words sum[8] = {};
    for (size_t i = 0; i < row; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) sum[j] ^= from[j * row + i];
    }
    for (int j = 1; j < 8; j++) sum[0] ^= sum[j];
    return sum[0][0] ^ sum[0][1] ^ sum[0][2] ^ sum[0][3];
}

static void *work(void *first) {
    words *memory = aligned_alloc(2 << 20, BYTES);
    if (!memory) return (void *)1;
    madvise(memory, BYTES, MADV_HUGEPAGE);
    for (size_t i = 0; i < BYTES / sizeof(words); i++) memory[i] = (words){i, 1, 2, 3};
    for (int try = 0; try < TRIES; try++) {
        double times[4];
        pthread_barrier_wait(&all);
        times[0] = now();
        float sum = multiply_adds();
        pthread_barrier_wait(&all);
        times[1] = now();
        keep = sum;
        pthread_barrier_wait(&all);
        times[2] = now();
        keep = (float)read_all(memory);
        pthread_barrier_wait(&all);
        times[3] = now();
        if (first) fma_seconds[try] = times[1] - times[0], read_seconds[try] = times[3] - times[2];
    }
    free(memory);
    return NULL;
}

static double least(const double *of) {
    double found = of[0];
    for (int i = 1; i < TRIES; i++) found = of[i] < found ? of[i] : found;
    return found;
}

int main(int count, char **arguments) {
    long threads = count > 1 ? strtol(arguments[1], NULL, 10) : 1;
    if (threads < 1 || threads > 256) return fprintf(stderr, "threads: 1 to 256\n"), 2;
    pthread_t others[256];
    pthread_barrier_init(&all, NULL, threads);
    for (long i = 1; i < threads; i++) pthread_create(&others[i], NULL, work, NULL);
    void *failed = work(&all);
    for (long i = 1; i < threads; i++) pthread_join(others[i], NULL);
    if (failed) return fprintf(stderr, "not enough memory\n"), 1;
    printf("{\"fma_gflops\": %.1f, \"read_gb_s\": %.1f}\n", threads * 2.0 * 8 * SUMS * ROUNDS / least(fma_seconds) / 1e9, threads * (double)BYTES / least(read_seconds) / 1e9);
    return 0;
}

/* Reads whole blocks at random places of a disk, past the page cache, with several under way at once.
 *
 * Usage: reads FILE BLOCK_BYTES IN_FLIGHT COUNT. Prints the sum of the first 64-bit words of all that was read.
 * Up to IN_FLIGHT reads are handed to the kernel in one call and taken back in one, by the system calls that
 * libaio wraps; the places follow from a fixed seed. With IN_FLIGHT 0, COUNT blocks are read from the beginning
 * on, one by one. Where a file system knows no O_DIRECT, as on the host, reads are ordinary ones.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALIGNMENT 4096
#define IN_FLIGHT_MAX 256

static int disk;
static size_t block_bytes;
static uint64_t blocks, sum, state = 88172645463325252u;

static void fail(const char *what)
{
	fprintf(stderr, "reads: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Xorshift: Marsaglia, Journal of Statistical Software 8 (2003). */
static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void take(const void *block, int64_t bytes)
{
	uint64_t word;

	if (bytes != (int64_t)block_bytes) {
		errno = bytes < 0 ? -bytes : EIO;
		fail("read");
	}
	memcpy(&word, block, sizeof word);
	sum += word;
}

static void in_order(char *buffer, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		take(buffer, pread(disk, buffer, block_bytes, (off_t)(i % blocks * block_bytes)));
}

static void at_random(char *buffers, long in_flight, uint64_t count)
{
	static struct iocb requests[IN_FLIGHT_MAX], *wanted[IN_FLIGHT_MAX];
	static struct io_event done[IN_FLIGHT_MAX];
	aio_context_t context = 0;

	if (syscall(SYS_io_setup, in_flight, &context))
		fail("io_setup");
	while (count) {
		long batch = count < (uint64_t)in_flight ? (long)count : in_flight;

		for (long i = 0; i < batch; i++) {
			memset(&requests[i], 0, sizeof requests[i]);
			requests[i].aio_lio_opcode = IOCB_CMD_PREAD;
			requests[i].aio_fildes = (uint32_t)disk;
			requests[i].aio_buf = (uintptr_t)(buffers + (size_t)i * block_bytes);
			requests[i].aio_nbytes = block_bytes;
			requests[i].aio_offset = (int64_t)(next_random() % blocks * block_bytes);
			wanted[i] = &requests[i];
		}
		if (syscall(SYS_io_submit, context, batch, wanted) != batch)
			fail("io_submit");
		if (syscall(SYS_io_getevents, context, batch, batch, done, NULL) != batch)
			fail("io_getevents");
		for (long i = 0; i < batch; i++) {
			struct iocb *request = (struct iocb *)(uintptr_t)done[i].obj;
			take((void *)(uintptr_t)request->aio_buf, done[i].res);
		}
		count -= (uint64_t)batch;
	}
}

int main(int argc, char **argv)
{
	long in_flight;
	off_t size;
	char *buffers;

	if (argc != 5)
		return 2;
	block_bytes = strtoul(argv[2], NULL, 10);
	in_flight = strtol(argv[3], NULL, 10);
	if (!block_bytes || block_bytes % ALIGNMENT || in_flight < 0 || in_flight > IN_FLIGHT_MAX)
		return 2;
	disk = open(argv[1], O_RDONLY | O_DIRECT);
	if (disk < 0 && errno == EINVAL)
		disk = open(argv[1], O_RDONLY);
	if (disk < 0 || (size = lseek(disk, 0, SEEK_END)) < 0)
		fail(argv[1]);
	blocks = (uint64_t)size / block_bytes;
	buffers = aligned_alloc(ALIGNMENT, block_bytes * (size_t)(in_flight ? in_flight : 1));
	if (!buffers || !blocks)
		fail("buffers");
	if (in_flight)
		at_random(buffers, in_flight, strtoull(argv[4], NULL, 10));
	else
		in_order(buffers, strtoull(argv[4], NULL, 10));
	printf("%016" PRIx64 "\n", sum);
	return 0;
}

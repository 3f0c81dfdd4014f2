// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fuzz the files of chm in debugfs (Documentation/debugfs.rst), in a guest.
 *
 * usage: fuzz [-s SEED] [-n INPUTS] [-j PROCESSES]
 *
 * Each process has a map of its own.  It keeps a model of it, and knows the result of each
 * command and the contents of each file.  The other processes move the table of this map
 * and read its files, but leave the pairs alone.
 *
 * All processes create, destroy, write and read the shared maps.  Lines are valid, mutated
 * or garbage.  Here the documentation limits the results: table_of_verbs.
 *
 * An input is one action, most often a write or a read.  The seed and the number of an
 * input choose what it does.  How the inputs of the processes interleave is up to the
 * kernel.  If there is /proc/self/fail-nth, some inputs have an allocation fail.
 *
 * The last line tells the totals.  The exit status is 0 only if nothing failed.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHM		"/sys/kernel/debug/chm"
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define PROCESSES	16U		/* at most */
#define SHARED		4U		/* maps; from LARGE on, of large pairs */
#define LARGE		2U
#define HANDLES		12U		/* open files of a process */
#define KEYS		40U		/* in a model */
#define KEYS_LARGE	4U		/* in a model of large pairs */
#define KEY_MAX		4096U
#define VALUE_MAX	65536U
#define LINE_TOP	4095U		/* bytes in a line that are always accepted */
#define LINE_EVER	(2 * (KEY_MAX + VALUE_MAX) + 16)	/* and the limit of all maps */
#define ARENA		0x100000U
#define REPORTS		20U		/* failures that are printed */
#define STALL		180U		/* seconds without any input */

/* === Results ============================================================= */

/* What a call returns, as a set of one.  GOT_OTHER is never right. */
enum result {
	GOT_OK		= 0x001,
	GOT_2BIG	= 0x002,
	GOT_BUSY	= 0x004,
	GOT_EXIST	= 0x008,
	GOT_FAULT	= 0x010,
	GOT_INVAL	= 0x020,
	GOT_IO		= 0x040,
	GOT_NODATA	= 0x080,
	GOT_NOENT	= 0x100,
	GOT_NOMEM	= 0x200,
	GOT_RANGE	= 0x400,
	GOT_STALE	= 0x800,
	GOT_OTHER	= 0x1000
};

/* In the same order */
static const int result_errors[] = {
	0, E2BIG, EBUSY, EEXIST, EFAULT, EINVAL, EIO, ENODATA, ENOENT, ENOMEM, ERANGE, ESTALE
};

/* Counts of one process, which the parent reads. */
struct tally {
	unsigned long	inputs, writes, accepted, reads, opens, nomem, stale;
};

static struct {
	struct tally	tally[PROCESSES];
	unsigned int	failures;
	/* Of the shared maps as last created: a hint. */
	unsigned int	key_size[SHARED], value_size[SHARED];
} *shared;

static unsigned int process;
static unsigned long input;
static struct tally *tally;

#define fail(fmt, ...) do {						\
	if (__atomic_add_fetch(&shared->failures, 1, __ATOMIC_RELAXED) <= REPORTS) \
		printf("fuzz: !!! process %u, input %lu: " fmt "\n",	\
		       process, input, ##__VA_ARGS__);			\
} while (0)

static int last_error;

static unsigned int result_of(int error)
{
	unsigned int i;

	last_error = error;
	for (i = 0; i < ARRAY_SIZE(result_errors); i++) {
		if (result_errors[i] == error)
			return 1U << i;
	}
	return GOT_OTHER;
}

/* Some bytes of a line, for people. */
static const char *excerpt(const char *line, size_t len)
{
	static char text[340];
	size_t i, at = 0;

	for (i = 0; i < len && i < 80; i++)
		at += sprintf(text + at, isprint((unsigned char)line[i]) ? "%c" : "\\%03o",
			      (unsigned char)line[i]);
	sprintf(text + at, i < len ? "..." : "");
	return text;
}

/* === Random numbers ====================================================== */

static unsigned long state;

static unsigned long random_long(void)
{
	unsigned long n = state += 0x9e3779b97f4a7c15;

	n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9;
	n = (n ^ n >> 27) * 0x94d049bb133111eb;
	return n ^ n >> 31;
}

static unsigned int below(unsigned int n)
{
	return (random_long() >> 32) * n >> 32;
}

static bool one_in(unsigned int n)
{
	return !below(n);
}

static void begin_input(unsigned long seed)
{
	state = seed ^ (unsigned long)process << 56;
	state = random_long() ^ input;
}

/* === Text ================================================================ */

struct text {
	size_t	len;
	char	s[ARENA];
};

static struct text line;

static void add_bytes(struct text *t, const char *s, size_t len)
{
	if (len > sizeof(t->s) - t->len)
		len = sizeof(t->s) - t->len;
	memcpy(t->s + t->len, s, len);
	t->len += len;
}

static void add(struct text *t, const char *s)
{
	add_bytes(t, s, strlen(s));
}

static void add_number(struct text *t, unsigned long n)
{
	char s[24];

	sprintf(s, "%lu", n);
	add(t, s);
}

static bool is_integer(unsigned int size)
{
	return size && size <= sizeof(long) && !(size & (size - 1));
}

/* The largest integer of so many bytes */
static unsigned long largest(unsigned int size)
{
	return ~0UL >> (64 - size * 8);
}

static unsigned long integer_of(const unsigned char *bytes, unsigned int size)
{
	unsigned long n = 0;

	memcpy(&n, bytes, size);	/* these guests are little-endian */
	return n;
}

static void add_hex(struct text *t, const unsigned char *bytes, unsigned int size, bool upper)
{
	const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
	unsigned int i;

	if (2 * size > sizeof(t->s) - t->len)
		size = 0;
	for (i = 0; i < size; i++) {
		t->s[t->len++] = digits[bytes[i] >> 4];
		t->s[t->len++] = digits[bytes[i] & 15];
	}
}

/* As the files show it */
static void add_object(struct text *t, const unsigned char *bytes, unsigned int size)
{
	if (!size)
		add(t, "-");
	else if (is_integer(size))
		add_number(t, integer_of(bytes, size));
	else
		add_hex(t, bytes, size, false);
}

/* In one of the ways in which it may be written */
static void add_object_somehow(struct text *t, const unsigned char *bytes, unsigned int size)
{
	char s[40];

	if (!is_integer(size) && size) {
		add_hex(t, bytes, size, one_in(2));
	} else if (size && one_in(2)) {
		sprintf(s, one_in(2) ? "0x%0*lX" : "0X%0*lx", below(2 * size),
			integer_of(bytes, size));
		add(t, s);
	} else {
		add_object(t, bytes, size);
	}
}

/* === Calls =============================================================== */

static int fail_nth = -1;

/* Now and then, have an allocation of the next call fail. */
static bool inject(void)
{
	char s[8];

	if (fail_nth < 0 || !one_in(16))
		return false;
	sprintf(s, "%u", 1 + below(12));
	return pwrite(fail_nth, s, strlen(s), 0) > 0;
}

static void end_injection(bool injected)
{
	int error = errno;

	if (injected && pwrite(fail_nth, "0", 1, 0) != 1)
		fail("fail-nth does not take a 0");
	errno = error;
}

/* A write() of all, or of nothing.  Return: its result. */
static unsigned int put(int fd, const char *s, size_t len)
{
	bool injected = inject();
	ssize_t n = write(fd, s, len);
	unsigned int result = result_of(n < 0 ? errno : 0);

	end_injection(injected);
	tally->writes++;
	tally->accepted += n >= 0;
	tally->nomem += result == GOT_NOMEM;
	if (n >= 0 && (size_t)n != len)
		fail("a write of %zu bytes returned %zd: '%s'", len, n, excerpt(s, len));
	return result;
}

/* A read has ended: count it. */
static void count_read(unsigned int result)
{
	tally->reads++;
	tally->nomem += result == GOT_NOMEM;
	tally->stale += result == GOT_STALE;
}

/* Complain of a result that is none of @wanted. */
static void check_result(unsigned int result, unsigned int wanted, const char *what)
{
	if (!(result & wanted))
		fail("%s: %s, not of %#x", what, strerror(last_error), wanted);
}

static void check_line(unsigned int result, unsigned int wanted)
{
	if (!(result & wanted))
		fail("'%s': %s, not of %#x", excerpt(line.s, line.len), strerror(last_error),
		     wanted);
}

/* === Files =============================================================== */

enum file { CONTROL, LOOKUP, ENTRIES, PROBES, STATS, FILES };

static const char * const file_names[] = { "control", "lookup", "entries", "probes", "stats" };

/* The topmost directory, the shared maps, then the model of each process */
#define TOP	(-1)
#define MODEL	((int)SHARED)

static void name_of(char name[24], int map)
{
	if (map < MODEL)
		sprintf(name, "m%d", map);
	else
		sprintf(name, "model-%d", map - MODEL);
}

static int open_file(int map, enum file file, int flags)
{
	char path[80], name[24];
	int fd;

	name_of(name, map);
	if (map == TOP)
		sprintf(path, CHM "/control");
	else
		sprintf(path, CHM "/%s/%s", name, file_names[file]);
	fd = open(path, flags | O_CLOEXEC);
	tally->opens += fd >= 0;
	return fd;
}

/* Does the file show an address of the kernel?  @s ends with a NUL. */
static bool shows_address(const char *s)
{
	while ((s = strstr(s, "ffff"))) {
		if (strspn(s, "0123456789abcdef") >= 16)
			return true;
		s += 4;
	}
	return false;
}

/*
 * The same for pairs of a shared map, whose numbers are small and whose bytes have no
 * digit f: a number, or a word in the order of memory.
 */
static bool word_is_address(const char *word, size_t len)
{
	size_t i;

	if (len == 20 && strspn(word, "0123456789") >= len)
		return strncmp(word, "18446462598732840960", len) >= 0 &&
		       strncmp(word, "18446744073709551615", len) <= 0;
	for (i = 16; i <= len; i += 16) {
		if (!strncmp(word + i - 4, "ffff", 4))
			return true;
	}
	return false;
}

static bool pairs_show_address(const char *s)
{
	while (*s) {
		size_t len = strcspn(s, "\n ");

		/* The last word may be cut off. */
		if (s[len] && word_is_address(s, len))
			return true;
		s += len;
		s += strspn(s, "\n ");
	}
	return false;
}

/* What was read must be text of this file.  @begins: from the beginning of a line */
static void check_text(int map, enum file file, char *s, size_t len, bool begins)
{
	bool pairs = map != TOP && (file == ENTRIES || file == LOOKUP);
	const char *set = pairs ? "0123456789abcdef-\n " : NULL;
	size_t i;

	s[len] = '\0';
	for (i = 0; i < len; i++) {
		if (set ? !s[i] || !strchr(set, s[i]) :
			  !isprint((unsigned char)s[i]) && s[i] != '\n' && s[i] != '\t') {
			fail("file %d of map %d has byte %d: '%s'", file, map, s[i],
			     excerpt(s, len));
			return;
		}
	}
	if (pairs ? begins && map < MODEL && pairs_show_address(s) : shows_address(s))
		fail("file %d of map %d shows an address: '%s'", file, map, excerpt(s, len));
}

/* === Commands ============================================================ */

/* Any line may meet these. */
#define ANY	(GOT_INVAL | GOT_NOMEM)

static const struct verb {
	const char	*name;
	unsigned int	min, max;	/* words that follow */
	unsigned int	results;	/* besides ANY, and EIO if the map is gone */
} table_of_verbs[] = {
	{ "insert",  2, 2, GOT_OK | GOT_2BIG | GOT_EXIST | GOT_RANGE },
	{ "replace", 2, 2, GOT_OK | GOT_NOENT | GOT_RANGE },
	{ "upsert",  2, 2, GOT_OK | GOT_2BIG | GOT_RANGE },
	{ "remove",  1, 1, GOT_OK | GOT_NOENT | GOT_RANGE },
	{ "add",     3, 3, GOT_OK | GOT_2BIG | GOT_RANGE },
	{ "fill",    2, 2, GOT_OK | GOT_2BIG | GOT_EXIST | GOT_RANGE },
	{ "grow",    0, 0, GOT_OK | GOT_NODATA | GOT_2BIG },
	{ "rehash",  0, 0, GOT_OK | GOT_NODATA },
	{ "shrink",  0, 0, GOT_OK },
	{ "reserve", 1, 1, GOT_OK | GOT_2BIG | GOT_RANGE },
	{ "clear",   0, 0, GOT_OK },
	{ "verify",  0, 0, GOT_OK | GOT_BUSY },
};

static const struct verb top_verbs[] = {
	{ "create",  3, 9, GOT_OK | GOT_EXIST | GOT_RANGE },
	{ "destroy", 1, 1, GOT_OK | GOT_NOENT },
};

static const struct verb lookup_verb = { "", 0, 0, GOT_OK | GOT_NOENT | GOT_RANGE };

/* A word of a line ends at these. */
static size_t word_length(const char *s, const char *end)
{
	const char *at = s;

	while (at < end && *at != ' ' && *at != '\t')
		at++;
	return at - s;
}

/* Find the words of a line.  Return: how many there are, up to @max. */
static unsigned int split(const char *s, size_t len, const char **words, size_t *lengths,
			  unsigned int max)
{
	const char *end = s + len;
	unsigned int n = 0;

	while (s < end && n < max) {
		size_t length = word_length(s, end);

		if (length) {
			words[n] = s;
			lengths[n++] = length;
		}
		s += length + 1;
	}
	return n;
}

/* Without its newline, is it printable ASCII and tabs? */
static bool is_text(const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++) {
		if (s[i] != '\t' && (s[i] < ' ' || s[i] > '~'))
			return false;
	}
	return true;
}

static const struct verb *find_verb(const struct verb *verbs, unsigned int nr,
				    const char *word, size_t length)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (strlen(verbs[i].name) == length && !memcmp(verbs[i].name, word, length))
			return &verbs[i];
	}
	return NULL;
}

static bool same_option(const char *a, const char *b, size_t length)
{
	size_t name = strcspn(a, "= ") + 1;

	return name < length && a[name - 1] == '=' && !strncmp(a, b, name);
}

/* A parameter of create may be given once. */
static bool repeats_option(const char **words, const size_t *lengths, unsigned int n)
{
	unsigned int i, j;

	for (i = 0; i < n; i++) {
		for (j = 0; j < i; j++) {
			if (same_option(words[i], words[j], lengths[i]))
				return true;
		}
	}
	return false;
}

/* The results that the documentation allows for a line, whatever the map is like. */
static unsigned int allowed(int map, enum file file, const char *s, size_t len)
{
	const unsigned int gone = map == TOP ? 0 : GOT_IO;
	const char *words[16];
	size_t lengths[16];
	const struct verb *v;
	unsigned int n, results = ANY | gone;

	if (len > (map == TOP ? LINE_TOP : LINE_EVER))
		return GOT_2BIG | gone;
	if (len > LINE_TOP)
		results |= GOT_2BIG;
	if (len && s[len - 1] == '\n')
		len--;
	n = split(s, len, words, lengths, ARRAY_SIZE(words));
	if (!n || !is_text(s, len))
		return results;
	if (map != TOP && file == LOOKUP)
		return n == 1 ? results | lookup_verb.results : results;
	if (map == TOP)
		v = find_verb(top_verbs, ARRAY_SIZE(top_verbs), words[0], lengths[0]);
	else
		v = find_verb(table_of_verbs, ARRAY_SIZE(table_of_verbs), words[0],
			      lengths[0]);
	if (!v || n - 1 < v->min || n - 1 > v->max)
		return results;
	if (map == TOP && n > 2 && repeats_option(words + 2, lengths + 2, n - 2))
		return results | GOT_RANGE;
	return results | v->results;
}

/* === The model =========================================================== */

static struct {
	bool		exists, cell;
	unsigned int	key_size, value_size;
	unsigned int	keys;		/* that are used */
	unsigned long	base;		/* the first of them, if they are integers */
	unsigned int	max;		/* pairs; 0: any number */
	unsigned int	count;
	bool		present[KEYS];
	unsigned char	*values;
	unsigned int	looked;		/* up, last with success; KEYS: none */
	int		fd[FILES];
} model;

static unsigned char *model_value(unsigned int i)
{
	return model.values + (size_t)i * model.value_size;
}

static void model_key(unsigned int i, unsigned char *key)
{
	unsigned long n = model.base + i;
	unsigned int j;

	if (is_integer(model.key_size)) {
		memcpy(key, &n, model.key_size);
		return;
	}
	for (j = 0; j < model.key_size; j++)
		key[j] = j ? i * 7 + j * 29 : i;
}

/* Did a command succeed, as it should or should not? */
static bool model_did(unsigned int result, unsigned int wanted)
{
	check_line(result, wanted | GOT_NOMEM);
	return result == GOT_OK;
}

static void begin_command(const char *verb)
{
	line.len = 0;
	if (one_in(8))
		add(&line, "\t ");
	add(&line, verb);
}

static void end_command(void)
{
	if (one_in(2))
		add(&line, "\n");
}

static void add_model_key(unsigned int i)
{
	unsigned char key[KEY_MAX];

	model_key(i, key);
	add(&line, " ");
	add_object_somehow(&line, key, model.key_size);
}

static unsigned int order_model(void)
{
	end_command();
	return put(model.fd[CONTROL], line.s, line.len);
}

static bool model_full(void)
{
	return model.max && model.count >= model.max;
}

static void model_insert(unsigned int i)
{
	model.count += !model.present[i];
	model.present[i] = true;
}

static void random_value(unsigned char *value)
{
	bool ones = one_in(4);
	unsigned int i;

	for (i = 0; i < model.value_size; i += sizeof(long)) {
		unsigned long n = ones ? ~0UL : random_long();

		memcpy(value + i, &n, sizeof(n));
	}
}

static void model_store(void)
{
	static const char * const verbs[] = { "insert", "replace", "upsert" };
	static unsigned char value[VALUE_MAX + sizeof(long)];
	unsigned int i = below(model.keys), how = below(3), wanted = GOT_OK;

	random_value(value);
	begin_command(verbs[how]);
	add_model_key(i);
	add(&line, " ");
	add_object_somehow(&line, value, model.value_size);
	if (how == 0 && model.present[i])
		wanted = GOT_EXIST;
	else if (how == 1 && !model.present[i])
		wanted = GOT_NOENT;
	else if (!model.present[i] && model_full())
		wanted = GOT_2BIG;
	if (!model_did(order_model(), wanted))
		return;
	model_insert(i);
	memcpy(model_value(i), value, model.value_size);
}

/* A key that is wrong: too large, or written as it must not be */
static unsigned int add_wrong_key(void)
{
	static const char * const wrong[] = {
		"-1", "+1", "0x", "1x", "0x0x1", "1.0", "x", "-", "0b1", "1,", "0xg"
	};
	char s[40];

	add(&line, " ");
	if (!is_integer(model.key_size) || one_in(2)) {
		add(&line, wrong[below(ARRAY_SIZE(wrong))]);
		return GOT_INVAL;
	}
	if (model.key_size == sizeof(long) || one_in(4))
		sprintf(s, "%lu%lu", 184467440737095516UL + below(100), 16UL + below(83));
	else
		sprintf(s, one_in(2) ? "%lu" : "0x%lx",
			largest(model.key_size) + 1 + below(300));
	add(&line, s);
	return GOT_RANGE;
}

static void model_refuse(void)
{
	static const char * const verbs[] = { "insert", "replace", "upsert", "remove" };
	unsigned int i = below(ARRAY_SIZE(verbs)), wanted;

	begin_command(verbs[i]);
	wanted = add_wrong_key();
	if (i < 3) {
		add(&line, " ");
		add_object_somehow(&line, model_value(0), model.value_size);
	}
	model_did(order_model(), wanted);
}

static void model_remove(void)
{
	unsigned int i = below(model.keys);

	begin_command("remove");
	add_model_key(i);
	if (!model_did(order_model(), model.present[i] ? GOT_OK : GOT_NOENT))
		return;
	model.present[i] = false;
	model.count--;
}

static void model_add(void)
{
	unsigned int i = below(model.keys), word = below(model.value_size / 8 + 2);
	unsigned long n = model.cell && one_in(4) ? random_long() : below(1000), sum = 0;
	unsigned int wanted = GOT_OK;

	begin_command("add");
	add_model_key(i);
	add(&line, " ");
	add_number(&line, word);
	add(&line, " ");
	add_number(&line, n);
	if (!model.cell || word >= model.value_size / 8)
		wanted = GOT_INVAL;
	else if (!model.present[i] && model_full())
		wanted = GOT_2BIG;
	if (!model_did(order_model(), wanted))
		return;
	if (!model.present[i])
		memset(model_value(i), 0, model.value_size);
	model_insert(i);
	memcpy(&sum, model_value(i) + word * 8, 8);
	sum += n;
	memcpy(model_value(i) + word * 8, &sum, 8);
}

static void model_clear(void)
{
	begin_command("clear");
	if (!model_did(order_model(), GOT_OK))
		return;
	memset(model.present, 0, sizeof(model.present));
	model.count = 0;
}

/* These move pairs to another table, or look at them. */
static void add_move(void)
{
	static const char * const moves[] = { "grow", "rehash", "shrink", "reserve", "verify" };
	unsigned int i = below(ARRAY_SIZE(moves));

	begin_command(moves[i]);
	if (i == 3) {
		add(&line, " ");
		add_number(&line, one_in(8) ? random_long() | 1UL << 60 : below(20));
	}
}

static void model_move(void)
{
	unsigned int result;

	add_move();
	result = order_model();
	check_line(result, allowed(MODEL, CONTROL, line.s, line.len) & ~GOT_INVAL &
		   ~GOT_IO);
}

/* Read all of @fd from its beginning, in pieces of any size. */
static size_t read_all(int fd, char *to, size_t size, unsigned int *result)
{
	bool large = size > 65536, injected = inject();
	size_t len = 0;
	ssize_t n = 0;

	if (lseek(fd, 0, SEEK_SET))
		fail("a file does not seek to 0");
	do {
		size_t piece = one_in(2) ? 1 + below(large ? 8192 : 64) : 1 + below(1 << 18);

		if (piece > size - len)
			piece = size - len;
		n = read(fd, to + len, piece);
		if (n > 0)
			len += n;
		if (n > (ssize_t)piece)
			fail("a read of %zu bytes returned %zd", piece, n);
	} while (n > 0);
	*result = result_of(n < 0 ? errno : 0);
	end_injection(injected);
	count_read(*result);
	return len;
}

/* Room for the listing of a model, which is never larger */
static char listing[ARENA];

/* As NAME/entries shows the pair */
static size_t model_line(unsigned int i, struct text *t)
{
	unsigned char key[KEY_MAX];

	model_key(i, key);
	t->len = 0;
	add_object(t, key, model.key_size);
	add(t, " ");
	add_object(t, model_value(i), model.value_size);
	add(t, "\n");
	return t->len;
}

/* Which pair is this line of a listing?  KEYS: none */
static unsigned int find_line(const char *s, size_t len, const bool *seen)
{
	static struct text t;
	unsigned int i;

	for (i = 0; i < model.keys; i++) {
		if (model.present[i] && !seen[i] && model_line(i, &t) == len &&
		    !memcmp(t.s, s, len))
			return i;
	}
	return KEYS;
}

/* The whole lines of a listing are pairs of the model, each once.  Return: how many */
static unsigned int check_lines(const char *s, size_t len)
{
	const char *end = s + len, *next;
	bool seen[KEYS] = { };
	unsigned int i, n = 0;

	for (; (next = memchr(s, '\n', end - s)); s = next + 1, n++) {
		i = find_line(s, next + 1 - s, seen);
		if (i == KEYS) {
			fail("the listing has '%s', with %u of %u bytes",
			     excerpt(s, next - s), model.key_size, model.value_size);
			return model.count;
		}
		seen[i] = true;
	}
	return n;
}

static void model_list(void)
{
	unsigned int result, n;
	size_t len = read_all(model.fd[ENTRIES], listing, sizeof(listing) - 1, &result);

	check_result(result, GOT_OK | GOT_NOMEM | GOT_STALE, "reading entries");
	if (result != GOT_OK)
		return;
	if (len && listing[len - 1] != '\n')
		fail("the listing ends within a line");
	n = check_lines(listing, len);
	if (n != model.count)
		fail("the listing has %u pairs, not %u", n, model.count);
}

/* From any offset: the lines behind the first end of a line */
static void model_list_from(void)
{
	bool injected = inject();
	ssize_t n = pread(model.fd[ENTRIES], listing, 1 + below(sizeof(listing) - 1),
			  below(one_in(2) ? 100 : 5000));
	unsigned int result = result_of(n < 0 ? errno : 0);
	const char *begin = n > 0 ? memchr(listing, '\n', n) : NULL;

	end_injection(injected);
	count_read(result);
	check_result(result, GOT_OK | GOT_NOMEM | GOT_STALE, "reading entries");
	if (begin)
		check_lines(begin + 1, listing + n - begin - 1);
}

static void model_lookup(void)
{
	unsigned int i = below(model.keys);
	unsigned char key[KEY_MAX];

	model_key(i, key);
	line.len = 0;
	add_object_somehow(&line, key, model.key_size);
	end_command();
	lseek(model.fd[LOOKUP], 0, SEEK_SET);
	if (model_did(put(model.fd[LOOKUP], line.s, line.len),
		      model.present[i] ? GOT_OK : GOT_NOENT))
		model.looked = i;
}

/* What was looked up last, as it is now */
static void model_show_lookup(void)
{
	bool shows = model.looked < KEYS && model.present[model.looked];
	static struct text shown;
	unsigned int result;
	size_t len;

	len = read_all(model.fd[LOOKUP], listing, sizeof(listing) - 1, &result);
	check_result(result, (shows ? GOT_OK : GOT_NODATA) | GOT_NOMEM, "reading lookup");
	if (result == GOT_OK && shows &&
	    (len != model_line(model.looked, &shown) || memcmp(listing, shown.s, len)))
		fail("lookup shows '%s'", excerpt(listing, len));
}

static void model_stats(void)
{
	unsigned int result;
	char expected[80];
	size_t len = read_all(model.fd[STATS], listing, sizeof(listing) - 1, &result);

	check_result(result, GOT_OK | GOT_NOMEM, "reading stats");
	if (result != GOT_OK)
		return;
	check_text(MODEL, STATS, listing, len, true);
	sprintf(expected, "\nentries: %u\n", model.count);
	if (!strstr(listing, expected))
		fail("stats do not say that %u pairs are there", model.count);
	sprintf(expected, "key_size: %u\nvalue_size: %u\n", model.key_size, model.value_size);
	if (strncmp(listing, expected, strlen(expected)))
		fail("stats begin with '%s'", excerpt(listing, len));
}

/* Choose sizes, keys and a limit. */
static void model_choose(void)
{
	static const unsigned int key_sizes[] = { 1, 2, 4, 8, 3, 5, 16, 100, KEY_MAX };
	static const unsigned int value_sizes[] = { 0, 1, 2, 4, 8, 3, 16, 65, 1000, VALUE_MAX };
	unsigned long most;

	model.cell = one_in(4);
	model.key_size = key_sizes[below(ARRAY_SIZE(key_sizes) - !one_in(8))];
	model.value_size = value_sizes[below(ARRAY_SIZE(value_sizes) - !one_in(8))];
	if (model.cell)
		model.value_size = 8 << below(6);
	model.keys = model.key_size + model.value_size > 1000 ? KEYS_LARGE : KEYS;
	model.max = one_in(3) ? 1 + below(model.keys) : 0;
	most = is_integer(model.key_size) ? largest(model.key_size) : 0;
	model.base = one_in(2) ? 0 : most - (most ? model.keys - 1 : 0);
	memset(model.present, 0, sizeof(model.present));
	model.count = 0;
	model.looked = KEYS;
	free(model.values);
	model.values = calloc(model.keys, model.value_size + 1);
}

static void add_model_options(void)
{
	char s[200];

	sprintf(s, " value=%u key=%u", model.value_size, model.key_size);
	add(&line, s);
	if (model.cell)
		add(&line, " class=cell");
	else if (is_integer(model.value_size) && one_in(2))
		add(&line, " class=word");
	if (one_in(3))
		add(&line, " reclaim=sync");
	if (model.max) {
		sprintf(s, " max=%u min=%u", model.max, below(model.max + 1));
		add(&line, s);
	}
	/* Tables of large pairs are to stay small when they grow again and again. */
	if (model.keys == KEYS && one_in(3)) {
		sprintf(s, " load=%u growth=%u", 25 + below(71), 110 + below(291));
		add(&line, s);
	}
}

static int model_map(void)
{
	return MODEL + (int)process;
}

static void model_open(void)
{
	enum file file;

	for (file = 0; file < FILES; file++) {
		int writes = file == CONTROL || file == LOOKUP ? O_RDWR : O_RDONLY;

		model.fd[file] = open_file(model_map(), file, writes);
		if (model.fd[file] < 0)
			fail("cannot open file %d of its map: %s", file, strerror(errno));
	}
}

static void model_create(int top)
{
	char name[24];

	if (model.exists)
		return;
	model_choose();
	name_of(name, model_map());
	begin_command("create ");
	add(&line, name);
	add_model_options();
	end_command();
	model.exists = model_did(put(top, line.s, line.len), GOT_OK);
	if (model.exists)
		model_open();
}

/* The files of the map that is gone return EIO. */
static void model_close(void)
{
	enum file file;

	for (file = 0; file < FILES; file++) {
		if (pread(model.fd[file], listing, 100, 0) >= 0 || errno != EIO)
			fail("reading file %d of a map destroyed", file);
		close(model.fd[file]);
	}
}

static void model_destroy(int top)
{
	char name[24];

	name_of(name, model_map());
	begin_command("destroy ");
	add(&line, name);
	if (!model_did(put(top, line.s, line.len), GOT_OK))
		return;
	model.exists = false;
	model_close();
}

/* Insert a row of keys, up to the first that cannot be. */
static unsigned int model_fill_row(unsigned int i, unsigned int n)
{
	unsigned long key;

	for (; n; i++, n--) {
		if (model.present[i])
			return GOT_EXIST;
		if (model_full())
			return GOT_2BIG;
		model_insert(i);
		key = model.base + i;
		memset(model_value(i), 0, model.value_size);
		memcpy(model_value(i), &key, model.value_size < 8 ? model.value_size : 8);
	}
	return GOT_OK;
}

/* Are these beyond the last key that there is? */
static bool beyond_keys(unsigned int i, unsigned int n)
{
	return n && n - 1 > largest(model.key_size) - (model.base + i);
}

/* How far it came without memory is not known: begin with another map. */
static void model_fill(int top)
{
	unsigned int i = below(model.keys), left = model.keys - i, n = below(left + 1);
	unsigned int wanted, result;

	/* At the end of the range, one too many. */
	if (one_in(8) && model.base)
		n = left + 1;

	begin_command("fill");
	add_model_key(i);
	add(&line, " ");
	add_number(&line, n);
	if (!is_integer(model.key_size))
		wanted = GOT_INVAL;
	else
		wanted = beyond_keys(i, n) ? GOT_RANGE : model_fill_row(i, n);
	result = order_model();
	model_did(result, wanted);
	while (result == GOT_NOMEM && model.exists)
		model_destroy(top);
}

static void model_input(int top)
{
	unsigned int what = below(100);

	if (!model.exists)
		model_create(top);
	else if (what < 35)
		model_store();
	else if (what < 38)
		model_refuse();
	else if (what < 47)
		model_remove();
	else if (what < 57)
		model_add();
	else if (what < 64)
		model_fill(top);
	else if (what < 74)
		model_move();
	else if (what < 80)
		model_lookup();
	else if (what < 84)
		model_show_lookup();
	else if (what < 88)
		model_list();
	else if (what < 92)
		model_list_from();
	else if (what < 96)
		model_stats();
	else if (what < 98)
		model_clear();
	else
		model_destroy(top);
}

/* === Lines =============================================================== */

/* Digits that say nothing like an address; see word_is_address() */
static void add_shared_object(unsigned int size, unsigned long n)
{
	unsigned int i;

	if (!size) {
		add(&line, "-");
	} else if (is_integer(size)) {
		add(&line, one_in(8) ? " 000000000000000000" : "");
		add_number(&line, n);
	} else {
		for (i = 0; i < 2 * size; i++)
			add_bytes(&line, &"0123456789abcde"[(n * 3 + i) % 15], 1);
	}
}

static unsigned long shared_number(void)
{
	static const unsigned long some[] = {
		0, 255, 256, 65535, 65536, 0xffffffff, 0x100000000, 0x7fffffffffffffff,
	};

	return one_in(8) ? some[below(ARRAY_SIZE(some))] : below(250);
}

static unsigned int count_limit(int map)
{
	return map < (int)LARGE ? 300 : 20;
}

static void add_shared_command(int map)
{
	const struct verb *v = &table_of_verbs[below(ARRAY_SIZE(table_of_verbs))];
	unsigned int i;

	begin_command(v->name);
	for (i = 0; i < v->min; i++) {
		add(&line, " ");
		if (!strcmp(v->name, "reserve"))
			add_number(&line, one_in(4) ? random_long() | 1UL << 60 :
						      below(count_limit(map)));
		else if (!strcmp(v->name, "fill") && i)
			add_number(&line, below(count_limit(map)));
		else if (!strcmp(v->name, "add") && i)
			add_number(&line, below(4));
		else
			add_shared_object(i ? shared->value_size[map] : shared->key_size[map],
					  shared_number());
	}
	end_command();
}

static void add_option(const char *name, unsigned int n)
{
	add(&line, " ");
	add(&line, name);
	add(&line, "=");
	add_number(&line, n);
}

/* To create a map, of these sizes */
static void add_create(int map, unsigned int *key_size, unsigned int *value_size)
{
	static const unsigned int sizes[] = { 1, 2, 4, 8, 3, 16, 40, 100 };
	static const char * const classes[] = { "frozen", "word", "cell", "clone" };
	char name[24];

	name_of(name, map);
	*key_size = sizes[below(ARRAY_SIZE(sizes))];
	*value_size = one_in(8) ? 0 : sizes[below(ARRAY_SIZE(sizes))];
	if (map >= (int)LARGE && one_in(2))
		*value_size = one_in(2) ? 1 + below(5000) : VALUE_MAX - below(2);
	begin_command("create ");
	add(&line, name);
	add_option("key", *key_size);
	add_option("value", *value_size);
	if (one_in(2)) {
		add(&line, " class=");
		add(&line, classes[below(4)]);
	}
	if (one_in(3))
		add(&line, one_in(2) ? " reclaim=sync" : " reclaim=deferred");
	if (one_in(3))
		add_option("max", below(400));
	if (one_in(4))
		add_option("min", below(20));
	if (map < (int)LARGE && one_in(3))
		add_option("load", 20 + below(80));
	if (map < (int)LARGE && one_in(3))
		add_option("growth", 100 + below(310));
	if (one_in(10))
		add_option("value", *value_size);
	end_command();
}

static const char * const dictionary[] = {
	" ", "\t", "\n", "\n\n", "=", "-", "+1", "-1", "0x", "0X1", "00", "0x0x1", "1_0", "1.5",
	"m0", "m1", "m2", "m3", ".", "..", "/", "m0/control", "control", "%s%n", "key=8",
	"value=8", "class=cell", "class=word", "class=", "reclaim=sync", "max=10", "min=5",
	"load=95", "growth=400", "max=18446744073709551616", "18446744073709551616",
	"99999999999999999999999999", "create", "destroy", "insert", "upsert", "replace",
	"remove", "add", "grow", "shrink", "rehash", "clear", "verify", "\xe4", "\x7f", "\x1b[0m",
};

static void insert_at(size_t at, const char *s, size_t len)
{
	if (line.len + len > sizeof(line.s))
		return;
	memmove(line.s + at + len, line.s + at, line.len - at);
	memcpy(line.s + at, s, len);
	line.len += len;
}

static void delete_at(size_t at, size_t len)
{
	if (len > line.len - at)
		len = line.len - at;
	memmove(line.s + at, line.s + at + len, line.len - at - len);
	line.len -= len;
}

/* Not an f: see word_is_address() */
static char random_char(void)
{
	unsigned char c = one_in(2) ? ' ' + below(95) : below(256);

	return tolower(c) == 'f' ? 'e' : c;
}

static void mutate_once(void)
{
	size_t at = below(line.len + 1), len = 1 + below(8);
	const char *word = dictionary[below(ARRAY_SIZE(dictionary))];
	char copy[8];

	switch (below(6)) {
	case 0:
		if (at < line.len)
			line.s[at] = random_char();
		break;
	case 1:
		insert_at(at, word, strlen(word));
		break;
	case 2:
		delete_at(at, len);
		break;
	case 3:
		len = len > line.len - at ? line.len - at : len;
		memcpy(copy, line.s + at, len);
		insert_at(at, copy, len);
		break;
	case 4:
		line.len = at;
		break;
	case 5:
		insert_at(one_in(2) ? line.len : at, "", 1);
		break;
	}
}

static void garbage(void)
{
	unsigned int n = below(one_in(8) ? 5000 : 60);

	line.len = 0;
	while (line.len < n) {
		char c = random_char();

		if (one_in(6))
			add(&line, dictionary[below(ARRAY_SIZE(dictionary))]);
		else
			add_bytes(&line, &c, 1);
	}
}

/* Would this number take much memory or time?  Enormous ones do not. */
static bool is_large(const char *word, size_t length, unsigned int digits)
{
	return length > digits && length < 17 && isdigit((unsigned char)word[0]);
}

/* Is it a command that would take all memory, or for ever? */
static bool is_costly(int map)
{
	unsigned int digits = map < (int)LARGE ? 4 : 2, i, n;
	const char *words[16];
	size_t lengths[16];

	n = split(line.s, line.len, words, lengths, ARRAY_SIZE(words));
	for (i = 0; i < n; i++) {
		const char *equals = memchr(words[i], '=', lengths[i]);
		size_t skip = equals ? equals + 1 - words[i] : 0;

		if (map == TOP && equals && !strncmp(words[i], "min", 3) &&
		    is_large(words[i] + skip, lengths[i] - skip, 2))
			return true;
	}
	if (map == TOP || n < 2)
		return false;
	if (!strncmp(words[0], "fill", 4))
		return n > 2 && (lengths[2] > digits || is_large(words[2], lengths[2], digits));
	return !strncmp(words[0], "reserve", 7) && is_large(words[1], lengths[1], digits);
}

/* Pairs in the maps whose names promise small ones: no four digits */
static bool is_large_create(void)
{
	const char *s = memmem(line.s, line.len, "value=", 6);
	bool small = memmem(line.s, line.len, "m0", 2) || memmem(line.s, line.len, "m1", 2);

	return s && small && word_length(s, line.s + line.len) > 6 + 3;
}

static void mutate(int map)
{
	unsigned int n = 1 + below(4);

	while (n--)
		mutate_once();
	if (is_costly(map) || (map == TOP && is_large_create()))
		line.len = 0;
}

/* A line that is too long, for some files */
static void lengthen(void)
{
	static const unsigned int lengths[] = {
		LINE_TOP - 1, LINE_TOP, LINE_TOP + 1, 8192, LINE_EVER, LINE_EVER + 1, ARENA - 1,
	};
	size_t len = lengths[below(ARRAY_SIZE(lengths))];

	if (line.len && line.s[line.len - 1] == '\n')
		line.len--;
	if (line.len < len) {
		memset(line.s + line.len, ' ', len - line.len);
		line.len = len;
	}
}

/* === Writing to shared maps ============================================== */

static char *forbidden;		/* a page that nobody may read or write, after the arena */

/* Two commands, or the halves of one.  Half of an enormous number is costly. */
static void write_in_parts(int fd, int map, enum file file)
{
	size_t len = line.len, cut = below(len + 1);
	struct iovec parts[] = { { line.s, cut }, { line.s + cut, len - cut } };
	bool costly;
	ssize_t n;

	line.len = cut;
	costly = is_costly(map);
	line.len = len;
	if (costly)
		return;
	tally->writes++;
	n = writev(fd, parts, 2);
	if (n < 0)
		check_line(result_of(errno), allowed(map, file, line.s, cut) |
			   (cut ? 0 : allowed(map, file, line.s, line.len)));
	else if ((size_t)n != cut && (size_t)n != line.len)
		fail("%zu and %zu bytes returned %zd", cut, line.len - cut, n);
}

static void write_badly(int fd, int map)
{
	unsigned int gone = map == TOP ? 0 : GOT_IO;
	size_t good = line.len < 64 ? line.len : 64;
	ssize_t n;

	tally->writes++;
	switch (below(3)) {
	case 0:
		if (lseek(fd, 1 + below(5000), SEEK_SET) <= 0)
			break;
		n = write(fd, line.s, line.len);
		lseek(fd, 0, SEEK_SET);
		check_result(result_of(n < 0 ? errno : 0), GOT_INVAL | gone,
			     "a write at an offset");
		break;
	case 1:
		memcpy(forbidden - good, line.s, good);
		n = write(fd, forbidden - good, good + 1 + below(100));
		check_result(result_of(n < 0 ? errno : 0),
			     GOT_FAULT | GOT_NOMEM | gone, "a write of bad memory");
		break;
	case 2:
		n = write(fd, line.s, 1UL << (20 + below(12)));
		check_result(result_of(n < 0 ? errno : 0), GOT_2BIG | gone,
			     "an enormous write");
		break;
	}
}

/* Write the line, or do with it what one should not. */
static unsigned int write_somehow(int fd, int map, enum file file)
{
	if (one_in(30)) {
		write_badly(fd, map);
	} else if (one_in(30)) {
		write_in_parts(fd, map, file);
	} else {
		unsigned int result;

		if (one_in(30))
			lengthen();
		result = put(fd, line.s, line.len);
		check_line(result, allowed(map, file, line.s, line.len));
		return result;
	}
	return GOT_OTHER;
}

static void shared_line(int map, enum file file)
{
	unsigned int how = below(10);

	if (how == 0) {
		garbage();
	} else if (file == LOOKUP) {
		line.len = 0;
		add_shared_object(shared->key_size[map], shared_number());
	} else {
		add_shared_command(map);
	}
	if (how == 0 || how > 6)
		mutate(map);
}

static void shared_input(void)
{
	enum file file = one_in(6) ? LOOKUP : CONTROL;
	int map = below(SHARED), fd = open_file(map, file, O_WRONLY);

	if (fd < 0)
		return;
	shared_line(map, file);
	write_somehow(fd, map, file);
	close(fd);
}

/* Create or destroy a shared map, or fail to. */
static void top_input(int top)
{
	unsigned int key_size = 0, value_size = 0, how = below(10), result;
	int map = below(SHARED);
	char name[24];

	name_of(name, map);
	if (how < 6) {
		add_create(map, &key_size, &value_size);
	} else {
		begin_command("destroy ");
		add(&line, name);
		end_command();
	}
	if (one_in(6))
		garbage();
	if (one_in(3)) {
		mutate(TOP);
		key_size = 0;
	}
	result = write_somehow(top, TOP, CONTROL);
	if (result == GOT_OK && key_size) {
		shared->key_size[map] = key_size;
		shared->value_size[map] = value_size;
	}
}

/* === Open files ========================================================== */

static struct handle {
	int		fd;
	int		map;
	enum file	file;
	bool		gone;		/* it has returned EIO */
} handles[HANDLES];

static unsigned int nr_processes;

static void open_handle(struct handle *h)
{
	static const int flags[] = { O_RDONLY, O_RDWR, O_RDWR | O_TRUNC, O_RDWR | O_APPEND };

	if (h->fd >= 0)
		close(h->fd);
	h->map = (int)below(1 + SHARED + nr_processes) - 1;	/* or TOP */
	h->file = h->map == TOP ? CONTROL : below(FILES);
	h->gone = false;
	h->fd = open_file(h->map, h->file, flags[below(ARRAY_SIZE(flags))]);
	if (h->fd < 0)
		check_result(result_of(errno), GOT_NOENT | GOT_NOMEM, "open");
}

/* A size of a buffer: tiny, or huge, with memory that cannot be written behind it */
static size_t random_size(void)
{
	switch (below(4)) {
	case 0:
		return 1 + below(16);
	case 1:
		return 1 + below(5000);
	case 2:
		return 1 + below(ARENA - 1);
	}
	return one_in(4) ? 1UL << (20 + below(12)) : 4096;
}

static off_t random_offset(void)
{
	switch (below(8)) {
	case 0:
		return random_long();
	case 1:
		return (1UL << below(63)) - below(2);
	case 2:
		return below(200000);
	case 3:
		return 0;
	}
	return below(3000);
}

static char *arena;	/* ends where the forbidden page begins */

static ssize_t read_somehow(const struct handle *h, size_t size, off_t *at)
{
	struct iovec parts[2] = { { arena, size / 2 }, { arena + size / 2, size - size / 2 } };

	switch (below(4)) {
	case 0:
		*at = random_offset();
		return pread(h->fd, arena, size, *at);
	case 1:
		*at = lseek(h->fd, random_offset(), below(3));
		break;
	case 2:
		*at = lseek(h->fd, 0, SEEK_SET);
		break;
	case 3:
		*at = 1;
		if (size < ARENA)
			return readv(h->fd, parts, 2);
		break;
	}
	return read(h->fd, arena, size);
}

static void read_handle(struct handle *h)
{
	unsigned int wanted = GOT_OK | GOT_IO | GOT_NOMEM, result;
	size_t size = random_size();
	bool injected = inject();
	off_t at = 0;
	ssize_t n;

	n = read_somehow(h, size, &at);
	result = result_of(n < 0 ? errno : 0);
	end_injection(injected);
	count_read(result);
	if (h->map != TOP && h->file == LOOKUP)
		wanted |= GOT_NODATA;
	if (h->map != TOP && h->file == ENTRIES)
		wanted |= GOT_STALE;
	if (at < 0)
		wanted |= GOT_INVAL;
	if (size >= ARENA)
		wanted |= GOT_FAULT;
	if (h->gone)
		wanted = GOT_IO | (at < 0 ? GOT_INVAL : 0);
	check_result(result, wanted, file_names[h->file]);
	h->gone |= result == GOT_IO;
	if (n > (ssize_t)size)
		fail("a read of %zu bytes returned %zd", size, n);
	else if (n > 0)
		check_text(h->map, h->file, arena, n, at == 0);
}

/* Calls that do nothing here, but must do no harm */
static void call_oddly(struct handle *h)
{
	struct pollfd p = { .fd = h->fd, .events = POLLIN | POLLOUT };
	struct stat st;

	if (h->fd < 0)
		return;
	switch (below(6)) {
	case 0:
		poll(&p, 1, 0);
		break;
	case 1:
		/* Not those that all files have, such as FIOCLEX */
		if (!ioctl(h->fd, random_long() | 0x80000000, arena))
			fail("ioctl succeeds");
		break;
	case 2:
		if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, h->fd, 0) != MAP_FAILED)
			fail("mmap succeeds");
		break;
	case 3:
		fsync(h->fd);
		break;
	case 4:
		if (fstat(h->fd, &st) || !S_ISREG(st.st_mode))
			fail("fstat fails");
		break;
	case 5:
		if (sendfile(h->fd, h->fd, NULL, 100) > 0)
			fail("sendfile succeeds");
		break;
	}
}

static void write_handle(struct handle *h)
{
	bool writable = h->file == CONTROL || h->file == LOOKUP;

	if (h->fd < 0 || !writable || h->map == TOP || h->map >= MODEL)
		return;
	if ((fcntl(h->fd, F_GETFL) & O_ACCMODE) == O_RDONLY || lseek(h->fd, 0, SEEK_SET))
		return;
	shared_line(h->map, h->file);
	write_somehow(h->fd, h->map, h->file);
}

static void handle_input(void)
{
	struct handle *h = &handles[below(HANDLES)];
	unsigned int what = below(16);

	if (h->fd < 0 || what < 3)
		open_handle(h);
	else if (what < 12)
		read_handle(h);
	else if (what < 15)
		write_handle(h);
	else
		call_oddly(h);
}

/* === Other inputs ======================================================== */

/* Move the table of somebody's model. */
static void other_model(void)
{
	int map = MODEL + below(nr_processes), fd = open_file(map, CONTROL, O_WRONLY);

	if (fd < 0)
		return;
	add_move();
	end_command();
	check_line(put(fd, line.s, line.len),
		   allowed(map, CONTROL, line.s, line.len) & ~GOT_INVAL);
	close(fd);
}

/* Kill a process that fills a map. */
static void interrupt_fill(void)
{
	int map = below(LARGE), fd;
	pid_t pid;

	if (shared->key_size[map] + shared->value_size[map] > 64)
		return;
	fd = open_file(map, CONTROL, O_WRONLY);
	if (fd < 0)
		return;
	pid = fork();
	if (!pid) {
		while (write(fd, "fill 0 100000", 13) == 13)
			;
		_exit(0);
	}
	close(fd);
	if (pid < 0)
		return;
	usleep(below(5000));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static bool is_ours(const char *name)
{
	return !strcmp(name, "control") || !strncmp(name, "model-", 6) ||
	       (name[0] == 'm' && name[1] >= '0' && name[1] < '0' + (char)SHARED && !name[2]);
}

/* List the maps, and destroy those that mutations have made. */
static void sweep(int top)
{
	DIR *dir = opendir(CHM);
	struct dirent *e;

	if (!dir) {
		check_result(result_of(errno), GOT_NOMEM, "listing the maps");
		return;
	}
	while ((e = readdir(dir))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || is_ours(e->d_name))
			continue;
		line.len = 0;
		add(&line, "destroy ");
		add(&line, e->d_name);
		check_line(put(top, line.s, line.len), GOT_OK | GOT_NOENT | GOT_NOMEM);
	}
	closedir(dir);
}

static void one_input(int top)
{
	unsigned int what = below(1000);

	if (what < 350)
		model_input(top);
	else if (what < 600)
		shared_input();
	else if (what < 690)
		top_input(top);
	else if (what < 960)
		handle_input();
	else if (what < 996)
		other_model();
	else if (what < 999)
		sweep(top);
	else
		interrupt_fill();
}

/* === Processes =========================================================== */

/* Memory that is there, lest an allocation for it is the one that is to fail */
static void map_memory(void)
{
	char *memory = mmap(NULL, ARENA + 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	arena = memory;
	forbidden = memory + ARENA;
	mprotect(forbidden, 4096, PROT_NONE);
	mlockall(MCL_CURRENT | MCL_FUTURE);
}

/* All inputs of one process */
static int run(unsigned long seed, unsigned long inputs)
{
	int top = open_file(TOP, CONTROL, O_RDWR);
	unsigned int i;

	if (top < 0)
		fail("cannot open %s/control: %s", CHM, strerror(errno));
	fail_nth = open("/proc/self/fail-nth", O_RDWR);
	map_memory();
	for (i = 0; i < HANDLES; i++)
		handles[i].fd = -1;
	for (; input < inputs && top >= 0; input++) {
		begin_input(seed);
		one_input(top);
		tally->inputs++;
		if (__atomic_load_n(&shared->failures, __ATOMIC_RELAXED) >= REPORTS)
			break;
	}
	if (model.exists)
		model_list();
	while (model.exists)
		model_destroy(top);
	return 0;
}

static struct tally sum(void)
{
	struct tally all = { };
	unsigned int i;

	for (i = 0; i < nr_processes; i++) {
		const struct tally *t = &shared->tally[i];

		all.inputs += t->inputs;
		all.writes += t->writes;
		all.accepted += t->accepted;
		all.reads += t->reads;
		all.opens += t->opens;
		all.nomem += t->nomem;
		all.stale += t->stale;
	}
	return all;
}

/* Until all processes have ended.  One that does not is a failure, too. */
static void await_end(void)
{
	unsigned int left = nr_processes, still = 0;
	unsigned long before = 0, now;
	int status;

	while (left && still < STALL) {
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid > 0) {
			left--;
			if (status)
				fail("a process ended with status %#x", status);
			continue;
		}
		sleep(1);
		now = sum().inputs;
		still = now == before ? still + 1 : 0;
		before = now;
	}
	if (left)
		fail("%u processes do nothing", left);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static int summary(unsigned long seed, double took)
{
	struct tally t = sum();

	printf("fuzz: measured: %lu writes, of which %lu were accepted, %lu reads, %lu opens\n",
	       t.writes, t.accepted, t.reads, t.opens);
	printf("fuzz: measured: %lu times ENOMEM, %lu times ESTALE\n", t.nomem, t.stale);
	printf("fuzz: measured: %lu inputs in %.0f s, %.0f a second, %u failures, seed %lu\n",
	       t.inputs, took, t.inputs / took, shared->failures, seed);
	return shared->failures != 0;
}

int main(int argc, char **argv)
{
	unsigned long seed = time(NULL), inputs = 10000;
	double begin = seconds();
	int opt;

	nr_processes = 8;
	while ((opt = getopt(argc, argv, "s:n:j:")) != -1) {
		if (opt == 's')
			seed = strtoul(optarg, NULL, 0);
		else if (opt == 'n')
			inputs = strtoul(optarg, NULL, 0);
		else if (opt == 'j')
			nr_processes = atoi(optarg);
		else
			return 2;
	}
	if (!nr_processes || nr_processes > PROCESSES)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("fuzz: -s %lu -n %lu -j %u\n", seed, inputs, nr_processes);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (process = 0; process < nr_processes; process++) {
		tally = &shared->tally[process];
		if (!fork())
			exit(run(seed, inputs / nr_processes));
	}
	await_end();
	return summary(seed, seconds() - begin);
}

/* Records what a process does to the files of one folder, in order, so that a test can work out
 * what a disk may hold after the power was cut at any moment. Loaded with LD_PRELOAD.
 *
 *   DISK_FOLDER   absolute path of the folder that is watched
 *   DISK_LOG      where the record goes
 *   DISK_FAULT    a file of one byte, changed by the test: 'n' nothing, 's' no space left,
 *                 'w' writes fail, 'f' syncs fail
 *
 * The calls reach the real files, so that the process sees what it wrote; syncs only wait a little,
 * for what is on the real disk does not matter. Entries are framed (struct entry, then name or
 * data) and appended with one writev, so a killed process leaves at most a torn last entry.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATED = 1, WRITTEN = 2, TRUNCATED = 3, SYNCED = 4, UNLINKED = 5, SYNC_FAILED = 6 };
enum { FILES = 4096, FDS = 65536, FOLDER = 1 };

struct entry {
    uint32_t kind;
    uint32_t file;    /* number of the file; FOLDER is the folder itself */
    uint64_t offset;  /* of a write; new size of a truncation; entries before a sync began */
    uint64_t length;  /* of what follows */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_length;
static int log_fd = -1;
static volatile const char *fault = "n";
static uint64_t entries;
static uint32_t next_file = FOLDER + 1;
static struct { ino_t inode; uint32_t file; } known[FILES];
static int known_count;
static uint32_t file_of[FDS];

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_ftruncate)(int, off64_t);
static int (*real_unlink)(const char *);
static int (*real_close)(int);

static void real(void *pointer, const char *name) {
    *(void **)pointer = dlsym(RTLD_NEXT, name);
    if (!*(void **)pointer) abort();
}

__attribute__((constructor)) static void begin(void) {
    real(&real_open, "open64");
    real(&real_write, "write");
    real(&real_pwrite, "pwrite64");
    real(&real_ftruncate, "ftruncate64");
    real(&real_unlink, "unlink");
    real(&real_close, "close");
    const char *log = getenv("DISK_LOG"), *switch_file = getenv("DISK_FAULT");
    folder = getenv("DISK_FOLDER");
    if (!folder || !log) { folder = NULL; return; }
    folder_length = strlen(folder);
    log_fd = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) abort();
    if (switch_file) {
        int fd = real_open(switch_file, O_RDONLY | O_CLOEXEC);
        void *page = fd < 0 ? MAP_FAILED : mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
        if (page == MAP_FAILED) abort();
        fault = page;
    }
}

/* With the mutex held. */
static void note(uint32_t kind, uint32_t file, uint64_t offset, const void *data, size_t length) {
    struct entry entry = {kind, file, offset, length};
    struct iovec parts[2] = {{&entry, sizeof entry}, {(void *)data, length}};
    if (writev(log_fd, parts, length ? 2 : 1) != (ssize_t)(sizeof entry + length)) abort();
    entries++;
}

static uint32_t watched(int fd) { return fd >= 0 && fd < FDS ? file_of[fd] : 0; }

static int inside(const char *path) {
    return folder && !strncmp(path, folder, folder_length) &&
           (path[folder_length] == '/' || !path[folder_length]);
}

static int opened(const char *path, int flags, mode_t mode) {
    if (!inside(path)) return real_open(path, flags, mode);
    pthread_mutex_lock(&mutex);
    struct stat status;
    int existed = stat(path, &status) == 0;
    int fd = real_open(path, flags, mode);
    if (fd >= 0 && fd < FDS && fstat(fd, &status) == 0) {
        if (!path[folder_length]) {
            file_of[fd] = FOLDER;
        } else {
            int i = 0;
            while (i < known_count && known[i].inode != status.st_ino) i++;
            if (i == FILES) abort();
            if (!existed) { /* a new file may have the inode of one that was unlinked */
                known[i].inode = status.st_ino;
                known[i].file = next_file++;
                if (i == known_count) known_count++;
                note(CREATED, known[i].file, 0, path + folder_length + 1,
                     strlen(path + folder_length + 1));
            }
            if (i < known_count) file_of[fd] = known[i].file;
            if (existed && (flags & O_TRUNC)) note(TRUNCATED, file_of[fd], 0, NULL, 0);
        }
    }
    pthread_mutex_unlock(&mutex);
    return fd;
}

#define OPEN(name)                                     \
    int name(const char *path, int flags, ...) {       \
        va_list rest;                                  \
        va_start(rest, flags);                         \
        mode_t mode = va_arg(rest, mode_t);            \
        va_end(rest);                                  \
        return opened(path, flags, mode);              \
    }
OPEN(open)
OPEN(open64)

static int refused(uint32_t file) {
    if (!file || (*fault != 's' && *fault != 'w')) return 0;
    errno = *fault == 's' ? ENOSPC : EIO;
    return 1;
}

static ssize_t placed(int fd, const void *data, size_t length, off64_t offset) {
    uint32_t file = watched(fd);
    if (refused(file)) return -1;
    if (!file) return real_pwrite(fd, data, length, offset);
    pthread_mutex_lock(&mutex);
    ssize_t done = real_pwrite(fd, data, length, offset);
    if (done > 0) note(WRITTEN, file, offset, data, done);
    pthread_mutex_unlock(&mutex);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return placed(fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return placed(fd, data, length, offset);
}

ssize_t write(int fd, const void *data, size_t length) {
    uint32_t file = watched(fd);
    if (!file) return real_write(fd, data, length);
    /* Not subject to faults: this is how the process says what it was told. */
    pthread_mutex_lock(&mutex);
    ssize_t done = real_write(fd, data, length);
    off64_t end = lseek64(fd, 0, SEEK_CUR);
    if (done > 0) note(WRITTEN, file, end - done, data, done);
    pthread_mutex_unlock(&mutex);
    return done;
}

static int truncated(int fd, off64_t size) {
    uint32_t file = watched(fd);
    if (!file) return real_ftruncate(fd, size);
    pthread_mutex_lock(&mutex);
    int done = real_ftruncate(fd, size);
    if (done == 0) note(TRUNCATED, file, size, NULL, 0);
    pthread_mutex_unlock(&mutex);
    return done;
}

int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncated(fd, size); }

static int synced(int fd, long number) {
    uint32_t file = watched(fd);
    if (!file) return (int)syscall(number, fd);
    pthread_mutex_lock(&mutex);
    uint64_t before = entries;
    pthread_mutex_unlock(&mutex);
    usleep(200); /* the others go on meanwhile, as they do while a disk works */
    int fails = *fault == 'f';
    pthread_mutex_lock(&mutex);
    note(fails ? SYNC_FAILED : SYNCED, file, before, NULL, 0);
    pthread_mutex_unlock(&mutex);
    if (fails) errno = EIO;
    return fails ? -1 : 0;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int unlink(const char *path) {
    if (!inside(path)) return real_unlink(path);
    pthread_mutex_lock(&mutex);
    int done = real_unlink(path);
    if (done == 0)
        note(UNLINKED, 0, 0, path + folder_length + 1, strlen(path + folder_length + 1));
    pthread_mutex_unlock(&mutex);
    return done;
}

int close(int fd) {
    if (fd >= 0 && fd < FDS) file_of[fd] = 0;
    return real_close(fd);
}

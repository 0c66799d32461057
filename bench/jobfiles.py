"""The file system of the whole jobs: a directory for the native run and the same files in an initramfs."""
import os
import shutil
import subprocess

import generate
from sides import HERE, Failure, make_initramfs

PROGRAMS = ("xz", "zstd", "openssl", "sqlite3", "python3", "gcc", "as")
LIBRARIES = "/lib/x86_64-linux-gnu"
LOADER = "/lib64/ld-linux-x86-64.so.2"
INPUTS = {
    "text": lambda: generate.text(12 << 20),
    "big.c": lambda: generate.c_source(150),
    "small.c": lambda: generate.c_source(24),
}


def resolve(tree, path):
    """Follows symbolic links as they would be followed if the tree were the root directory."""
    for _ in range(16):
        full = tree + path
        if not os.path.islink(full):
            return full
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(full)))
    raise Failure("too many symbolic links: %s%s" % (tree, path))


def find(tree, name):
    for directory, _, names in os.walk(tree + "/usr/lib/gcc"):
        if name in names:
            return os.path.join(directory, name)
    raise Failure("no %s in %s" % (name, tree))


def loader(tree):
    for path in (LOADER, "/usr" + LOADER):
        full = resolve(tree, path)
        if os.path.exists(full):
            return full
    raise Failure("no dynamic loader in %s" % tree)


def libraries(tree, programs):
    """Returns {name: path in the tree} of the shared libraries that the programs want, by the tree's own loader."""
    path = ":".join(tree + p for p in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"))
    found = {}
    for program in programs:
        listing = subprocess.run([loader(tree), "--library-path", path, "--list", program], check=True,
                                 stdout=subprocess.PIPE, text=True).stdout
        for line in listing.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            if not arrow or name == os.path.basename(LOADER):
                continue
            real = rest.rsplit(" (", 1)[0]
            if not real.startswith(tree + "/"):
                raise Failure("%s wants %s, which is not in %s" % (program, name, tree))
            found[name] = real
    return found


def contents(build, tree, inputs):
    """Returns {path: (mode, source)} of the files that the jobs need."""
    files = {"/usr/bin/" + p: (0o755, resolve(tree, "/usr/bin/" + p)) for p in PROGRAMS}
    for name in ("cc1",):
        real = find(tree, name)
        files[real[len(tree):]] = (0o755, real)
    for name, real in libraries(tree, [source for _, source in files.values()]).items():
        files[LIBRARIES + "/" + name] = (0o644, real)
    files[LOADER] = (0o755, loader(tree))
    # OpenSSL's modules and configuration, and Python's library.
    version = os.path.basename(resolve(tree, "/usr/bin/python3"))
    for top in ("/usr/lib/" + version, "/usr/lib/x86_64-linux-gnu/ossl-modules"):
        for directory, _, names in os.walk(tree + top):
            for name in names:
                full = os.path.join(directory, name)
                if not os.path.islink(full):
                    files[full[len(tree):]] = (0o644, full)
    for name in INPUTS:
        files["/bench/" + name] = (0o644, os.path.join(inputs, name))
    for name in ("loops.py", "rows.sql"):
        files["/bench/" + name] = (0o644, os.path.join(HERE, "jobs", name))
    files["/bench/run"] = (0o755, os.path.join(HERE, "jobs/run"))
    files["/bench/job"] = (0o755, os.path.join(build, "bench/job"))
    return files


def make(build):
    """Makes what the jobs need in BUILD/bench. Returns (root directory, initramfs)."""
    fetched = subprocess.run([os.path.join(HERE, "job-files.sh")], stdout=subprocess.PIPE, text=True)
    if fetched.returncode:
        raise Failure("the jobs' packages are not there")
    tree = fetched.stdout.strip()
    bench = os.path.join(build, "bench")
    inputs, root, cpio = (os.path.join(bench, name) for name in ("inputs", "root", "jobs.cpio"))
    os.makedirs(inputs, exist_ok=True)
    for name, produce in INPUTS.items():
        with open(os.path.join(inputs, name), "wb") as f:
            f.write(produce())
    files = contents(build, tree, inputs)

    shutil.rmtree(root, ignore_errors=True)
    for path, (mode, source) in files.items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        shutil.copyfile(source, root + path)
        os.chmod(root + path, mode)
    for name in ("bin", "dev", "proc", "tmp"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    shutil.copy2(os.path.join(build, "guest/busybox"), os.path.join(root, "bin/busybox"))

    directories = set()
    for path in files:
        while path.count("/") > 1:
            path = os.path.dirname(path)
            directories.add(path)
    lines = ["dir %s 755" % d for d in sorted(directories) if d != "/bin"]
    lines += ["file %s %o %s" % (path, mode, source) for path, (mode, source) in sorted(files.items())]
    lines.append("file /guise/jobs 755 " + os.path.join(HERE, "guest/jobs"))
    make_initramfs(build, cpio, lines)
    return root, cpio


def native_command(root, words):
    """Returns the command that runs the jobs in `root` as root directory.

    In a mount name space of its own, so that its /tmp is memory as it is in the guest, and in a user name space where
    the caller is not root.
    """
    unshare = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])
    script = ('mount -t tmpfs tmpfs "$1/tmp" && mount --rbind /dev "$1/dev" && root=$1 && shift && '
              'exec chroot "$root" /bench/run "$@"')
    return unshare + ["sh", "-c", script, "sh", os.path.abspath(root)] + words

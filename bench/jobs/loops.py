# The python3 job: loops of pure Python, as programs have them. The argument scales them.
import sys


def sieve(n):
    prime = [True] * n
    for i in range(2, n):
        if prime[i] and i * i < n:
            for j in range(i * i, n, i):
                prime[j] = False
    return sum(prime) - 2


def words(n):
    count, x = {}, 1
    for _ in range(n):
        x = (x * 1103515245 + 12345) & 0x7fffffff
        word = "w%d" % (x % 5000)
        count[word] = count.get(word, 0) + 1
    return max(count.values()), len(count)


class Body:
    def __init__(self, x, v):
        self.x, self.v = x, v

    def step(self, bodies):
        for other in bodies:
            if other is not self:
                self.v += (other.x - self.x) * 0.0001
        self.x += self.v * 0.01


def bodies(n):
    all_bodies = [Body(float(i), i * 0.5) for i in range(8)]
    for _ in range(n):
        for body in all_bodies:
            body.step(all_bodies)
    return sum(body.x for body in all_bodies)


def queens(n, row=0, columns=0, up=0, down=0):
    if row == n:
        return 1
    found, free = 0, ~(columns | up | down) & ((1 << n) - 1)
    while free:
        bit = free & -free
        free ^= bit
        found += queens(n, row + 1, columns | bit, (up | bit) << 1, (down | bit) >> 1)
    return found


scale = int(sys.argv[1])
print(sieve(250000 * scale), words(100000 * scale), repr(bodies(2500 * scale)), queens(8 if scale < 4 else 9))

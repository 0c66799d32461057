"""Inputs of the whole jobs, made here: the same on every machine, from a generator of our own."""

MASK = (1 << 64) - 1


class Random:
    """Knuth's MMIX generator; Python's own may change with its version."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & MASK
        return (self.state >> 33) % n

    def pick(self, items):
        return items[self.below(len(items))]


def text(size, seed=1):
    """Returns bytes that compress about as prose and logs do: a vocabulary with few frequent words, lines that
    resemble earlier ones, numbers."""
    random = Random(seed)
    syllables = [a + b for a in "b d f g k l m n p r s t v w st tr sh".split() for b in "a e i o u ai ou".split()]
    words = ["".join(random.pick(syllables) for _ in range(1 + random.below(4))) for _ in range(6000)]
    lines, out, length = [], [], 0
    while length < size:
        if lines and random.below(10) < 3:
            line = random.pick(lines).split(" ")
            for _ in range(1 + random.below(3)):
                line[random.below(len(line))] = random.pick(words)
        else:
            # The lesser of several numbers: the first words of the vocabulary are the frequent ones.
            line = [words[min(random.below(6000), random.below(6000), random.below(6000), random.below(2000))]
                    for _ in range(4 + random.below(12))]
            if random.below(4) == 0:
                line.insert(0, "%d.%06d" % (random.below(100000), random.below(1000000)))
        line = " ".join(line)
        lines.append(line)
        out.append(line)
        length += len(line) + 1
    return ("\n".join(out) + "\n").encode()[:size]


# Templates of C functions; {n} is the function's number, {a} to {d} are small odd constants.
TEMPLATES = ["""
struct node{n} {{ struct node{n} *left, *right; long key; unsigned count; short weight[{a}]; }};
static struct node{n} *insert{n}(struct node{n} *root, struct node{n} *item)
{{
	struct node{n} **link = &root;
	while (*link) {{
		if (item->key == (*link)->key) {{
			(*link)->count += {b};
			for (int i = 0; i < {a}; i++)
				(*link)->weight[i] = (short)((*link)->weight[i] * {c} + item->weight[i] / {d});
			return root;
		}}
		link = item->key < (*link)->key ? &(*link)->left : &(*link)->right;
	}}
	*link = item;
	return root;
}}
long tree{n}(struct node{n} *items, int count, long limit)
{{
	struct node{n} *root = 0;
	long sum = 0;
	for (int i = 0; i < count; i++) {{
		items[i].left = items[i].right = 0;
		root = insert{n}(root, &items[i]);
	}}
	for (struct node{n} *node = root; node; node = node->key > limit ? node->left : node->right)
		sum += node->key * {b} + node->count + node->weight[{a} / 2];
	return sum;
}}
""", """
int machine{n}(const unsigned char *code, unsigned long size, int *stack, int depth)
{{
	int top = 0, accumulator = {a};
	for (unsigned long at = 0; at < size; at++) {{
		switch (code[at] % 14) {{
		case 0: accumulator += code[at] * {b}; break;
		case 1: accumulator -= stack[top]; break;
		case 2: if (top + 1 < depth) stack[++top] = accumulator; break;
		case 3: if (top > 0) accumulator = stack[top--]; break;
		case 4: accumulator ^= accumulator << {s}; break;
		case 5: accumulator = accumulator > {c} ? accumulator / {d} : accumulator * {a}; break;
		case 6: if (accumulator & 1) at++; break;
		case 7: stack[top] = accumulator % {d}; break;
		case 8: accumulator = (int)(accumulator * 3.5 + {b}); break;
		case 9: if (accumulator < 0) accumulator = -accumulator; break;
		case 10: if (at >= {a} && accumulator % 5 == 3) at -= {a} / 2; accumulator++; break;
		case 11: stack[top] ^= stack[(unsigned)accumulator % (unsigned)depth]; break;
		case 12: return accumulator + stack[top];
		default: accumulator = ~accumulator; break;
		}}
	}}
	return accumulator;
}}
""", """
void matrix{n}(double *restrict out, const double *restrict x, const double *restrict y, int n)
{{
	for (int i = 0; i < n; i++)
		for (int j = 0; j < n; j++) {{
			double sum = {a}.25;
			for (int k = 0; k < n; k++)
				sum += x[i * n + k] * y[k * n + j] - {b}.0 / ({c} + k);
			out[i * n + j] = sum > {d}.0 ? sum : out[i * n + j] * 0.5;
		}}
	for (int i = {a}; i < n - {b}; i++)
		out[i] = (out[i - {a}] + out[i + {b}]) / {c}.0;
}}
""", """
unsigned long hash{n}(const char *s, unsigned long table[], unsigned size)
{{
	unsigned long h = {a}, g = {b};
	for (; *s; s++) {{
		h = (h << {s} | h >> (64 - {s})) ^ (unsigned char)*s * {c}UL;
		g += h & 0xff ? h * {d} : g >> 3;
		if (*s == '%' && s[1]) {{
			table[(h ^ g) % size] += {b};
			s++;
		}} else if (*s >= 'a' && *s <= 'z') {{
			table[(unsigned long)(*s - 'a') % size] ^= g;
		}}
	}}
	return h ^ g;
}}
""", """
static int order{n}(const int *a, const int *b)
{{
	return *a % {a} != *b % {a} ? *a % {a} - *b % {a} : (*a > *b) - (*a < *b);
}}
void sort{n}(int *items, int count)
{{
	for (int gap = count / 2; gap > 0; gap = gap == 2 ? 1 : gap * {b} / ({b} + {c} + 1))
		for (int i = gap; i < count; i++) {{
			int item = items[i], j = i;
			for (; j >= gap && order{n}(&items[j - gap], &item) > 0; j -= gap)
				items[j] = items[j - gap];
			items[j] = item;
		}}
	for (int low = 0, high = count - 1; low < high; low++, high--)
		if ((items[low] ^ items[high]) % {d} == 0) {{
			int t = items[low];
			items[low] = items[high];
			items[high] = t;
		}}
}}
""", """
unsigned filter{n}(unsigned short *pixels, unsigned width, unsigned height)
{{
	unsigned histogram[{a} * 8] = {{0}}, most = 0;
	for (unsigned y = 1; y + 1 < height; y++)
		for (unsigned x = 1; x + 1 < width; x++) {{
			unsigned short *p = pixels + y * width + x;
			unsigned v = p[0] * {b}u + p[-1] * {c}u + p[1] + p[width] * {d}u + p[-(int)width];
			p[0] = (unsigned short)(v / ({b} + {c} + {d} + 2));
			histogram[v % ({a} * 8)]++;
		}}
	for (unsigned i = 0; i < {a} * 8; i++)
		if (histogram[i] > histogram[most])
			most = i;
	return most;
}}
"""]


def c_source(functions, seed=2):
    """Returns a C file of that many functions; it needs no header."""
    random = Random(seed)
    out = ["/* Made by bench/generate.py. */\n"]
    for n in range(functions):
        a, b, c, d = (3 + 2 * random.below(40) for _ in range(4))
        out.append(TEMPLATES[n % len(TEMPLATES)].format(n=n, a=a, b=b, c=c, d=d, s=1 + random.below(30)))
    return "".join(out).encode()

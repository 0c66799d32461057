-- The sqlite3 job; the table "size" (n) says how many rows.
PRAGMA page_size = 4096;
PRAGMA cache_size = -16384;
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, kind INTEGER, price INTEGER);
BEGIN;
WITH RECURSIVE number (i, x) AS (
  SELECT 1, 12345 UNION ALL
  SELECT i + 1, (x * 1103515245 + 12345) & 2147483647 FROM number WHERE i < (SELECT n FROM size))
INSERT INTO item SELECT i, 'item' || (x % 100003), x / 7 % 97, x / 11 % 10000 FROM number;
COMMIT;
CREATE INDEX item_kind ON item (kind, price);
SELECT kind, count(*), sum(price), max(name) FROM item GROUP BY kind ORDER BY 3 DESC LIMIT 5;
UPDATE item SET price = price + 1 WHERE kind = 13;
SELECT count(*), sum(a.price) FROM item a JOIN item b ON b.id = a.price WHERE b.kind < 20;

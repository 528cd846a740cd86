CREATE TABLE car (id INTEGER PRIMARY KEY, model TEXT, year INTEGER, price REAL);
CREATE TABLE repair (id INTEGER PRIMARY KEY, car_id INTEGER REFERENCES car(id), cost REAL, day TEXT);
INSERT INTO car VALUES (1, 'Minnow', 1998, 900.0), (2, 'Heron', 2006, 2400.0), (3, 'Otter', 2011, 5100.0), (4, 'Swift', 2019, NULL);
INSERT INTO repair VALUES (1, 1, 120.5, '2021-03-01'), (2, 1, 80.0, '2022-06-11'), (3, 3, 310.0, '2022-08-30');

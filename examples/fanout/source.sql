create table orders (id bigint generated always as identity primary key, customer text not null, total numeric(10,2) not null);
create table products (id int primary key, title text not null, price numeric(10,2) not null);
create schema sales;
create table sales.lines (order_id bigint not null, line int not null, product int not null, primary key (order_id, line));
insert into products select i, 'Product ' || i, i from generate_series(1, 100) i;
insert into orders (customer, total) select 'Customer ' || i, i from generate_series(1, 1000) i;

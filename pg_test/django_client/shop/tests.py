"""As a user writes tests: within a transaction that never commits, in several processes on copies of one database."""

from django.db import connection, transaction
from django.test import TestCase

from .models import Sale


def value(query: str, *params):
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        return cursor.fetchone()[0]


class Watched:
    @classmethod
    def setUpTestData(cls):
        # A process of its own has a copy of the database, where queues and watches wait until somebody says so.
        value("SELECT count(*) FROM pushy.resume_after_restore()")

    def test_a_change_is_a_job(self):
        sale = Sale.objects.create(total=7)
        self.assertEqual(value("SELECT pushy.queue_run('mails')"), 1)
        self.assertEqual(value("SELECT body->'key'->>'id' FROM shop_mail"), str(sale.id))

    def test_what_is_undone_is_none(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            Sale.objects.create(total=7)
            1 / 0
        self.assertEqual(value("SELECT pushy.queue_run('mails')"), 0)
        Sale.objects.bulk_create([Sale(total=n) for n in range(5)])
        self.assertEqual(value("SELECT pushy.queue_run('mails')"), 5)

    def test_a_test_sees_nothing_of_another(self):
        self.assertEqual(value("SELECT count(*) FROM pushy.jobs"), 0)
        self.assertEqual(value("SELECT pushy.queue_run('mails')"), 0)


class First(Watched, TestCase):
    pass


class Second(Watched, TestCase):
    pass

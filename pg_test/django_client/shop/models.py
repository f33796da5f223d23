from django.db import models


class Sale(models.Model):
    total = models.BigIntegerField(default=0)
    note = models.TextField(default="", blank=True)

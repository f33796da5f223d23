from django.db import migrations


class Migration(migrations.Migration):
    """Django drops a column with CASCADE."""

    dependencies = [("shop", "0002_rename")]
    operations = [migrations.RemoveField("Sale", "vip")]

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Order", [
            ("id", models.BigAutoField(primary_key=True, auto_created=True, serialize=False, verbose_name="ID")),
            ("amount", models.IntegerField(default=0)),
            ("vip", models.BooleanField(default=False)),
            ("note", models.CharField(max_length=20, default="", blank=True))]),
        migrations.CreateModel("Mail", [
            ("id", models.BigAutoField(primary_key=True, auto_created=True, serialize=False, verbose_name="ID")),
            ("body", models.JSONField())]),
        migrations.RunSQL("""
            CREATE EXTENSION IF NOT EXISTS pushy;
            CREATE FUNCTION send_mail(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.shop_mail (body) VALUES (args)';
            SELECT pushy.queue_register('mails', 'send_mail(jsonb)');
            SELECT pushy.watch('shop_order', queue => 'mails', name => 'mails');
            SELECT pushy.watch('shop_order', channel => 'orders', name => 'orders', condition => 'NEW.amount > 100');
            SELECT pushy.watch('shop_order', channel => 'vips', name => 'vips', condition => 'NEW.vip')"""),
    ]
